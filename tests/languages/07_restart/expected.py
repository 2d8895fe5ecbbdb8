from case import nanoseconds, rows, text, write

before = {}
for row in rows():
    seen = before.setdefault(row["device"], [])
    values = [float(other["temperature"]) for other in [*seen, row] if other["temperature"] is not None]
    write(
        "seen",
        ts=text(nanoseconds(row["ts"])),
        device=row["device"],
        n=len(seen) + 1,
        highest=max(values, default=None),
        before=text(nanoseconds(seen[-1]["ts"])) if seen else None,
    )
    seen.append(row)
