from case import rows, write

for row in rows():
    if row["temperature"] is not None and row["temperature"] > 80:
        write("alarms", ts=row["ts"], device=row["device"], value=float(row["temperature"]))
