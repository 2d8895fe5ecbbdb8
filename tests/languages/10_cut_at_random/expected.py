from case import nanoseconds, rows, text, write

count, said = {}, {}
for row in rows():
    device, ts = row["device"], text(nanoseconds(row["ts"]))
    if row["temperature"] is not None and row["temperature"] > 80:
        write("alarms", ts=ts, device=device, value=float(row["temperature"]))
    if row["running"] is not None and row["running"] != said.get(device):
        said[device] = row["running"]
        write("states", ts=ts, device=device, active=row["running"])
    if row["running"] is not None and row["count"] is not None and row["count"] % 4 == 0:
        write("pump", device=device, run=row["running"])
    count[device] = count.get(device, 0) + 1
    write("seen", ts=ts, device=device, n=count[device], highest=None, before=None)
