from case import SECOND, nanoseconds, rows, text, write

newest, windows = None, {}
for row in rows():
    ts = nanoseconds(row["ts"])
    start = ts // (10 * SECOND) * 10 * SECOND
    watermark = ts if newest is None else newest
    if start + 10 * SECOND <= watermark - 2 * SECOND:
        number = row["temperature"] if row["temperature"] is None else float(row["temperature"])
        write(
            "late",
            ts=text(ts),
            device=row["device"],
            temperature=number,
            count=row["count"],
            running=row["running"],
        )
        continue
    newest = max(ts, watermark)
    for closed in sorted(window for window in windows if window + 10 * SECOND <= newest - 2 * SECOND):
        for device, values in windows.pop(closed).items():
            write("means", ts=text(closed), device=device, mean=sum(values) / len(values), n=len(values))
    if row["temperature"] is not None:
        windows.setdefault(start, {}).setdefault(row["device"], []).append(row["temperature"])
assert not windows, "the end of a recording closes windows in SQL only"
