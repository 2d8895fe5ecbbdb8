from case import SECOND, nanoseconds, rows, text, write

windows = {}
for row in rows():
    start = nanoseconds(row["ts"]) // (10 * SECOND) * 10 * SECOND
    for closed in sorted(window for window in windows if window < start):
        for device, values in windows.pop(closed).items():
            write("means", ts=text(closed), device=device, mean=sum(values) / len(values), n=len(values))
    if row["temperature"] is not None:
        windows.setdefault(start, {}).setdefault(row["device"], []).append(row["temperature"])
assert not windows, "the end of a recording closes windows in SQL only"
