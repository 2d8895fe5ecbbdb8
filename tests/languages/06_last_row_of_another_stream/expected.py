from case import Row, nanoseconds, rows, text, write

valves = {}
for row in rows():
    if row["stream"] == "valve":
        valves[row["device"]] = row
        continue
    valve = Row() if row["device"] is None else valves.get(row["device"], Row())
    number = lambda value: None if value is None else float(value)
    write(
        "joined",
        ts=text(nanoseconds(row["ts"])),
        device=row["device"],
        temperature=number(row["temperature"]),
        position=number(valve["position"]),
        open=valve["open"],
    )
