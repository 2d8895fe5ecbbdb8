from case import SECOND, nanoseconds, rows, text, write

# by device: since when, the newest force, and whether it has been said
pressing = {}


def alarms(until):
    due = [(since + 5 * SECOND, device) for device, (since, _, said) in pressing.items() if not said]
    for at, device in sorted(due):
        if at < until:
            pressing[device][2] = True
            write("alarms", ts=text(at), device=device, value=float(pressing[device][1]))


for row in rows():
    at = nanoseconds(row["ts"])
    alarms(at)
    if row["force"] > 10:
        pressing.setdefault(row["device"], [at, 0, False])[1] = row["force"]
    else:
        pressing.pop(row["device"], None)
