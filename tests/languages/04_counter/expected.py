from case import rows, write

last, total = {}, {}
for row in rows():
    device, count = row["device"], row["count"]
    if count is None:
        continue
    before = last.get(device)
    last[device] = count
    made = 0 if before is None else count if count < before else count - before
    if made > 0:
        total[device] = total.get(device, 0) + made
        write("produced", ts=row["ts"], device=device, made=made, total=total[device])
