from case import rows, write

hot, said = {}, {}
for row in rows():
    device, temperature = row["device"], row["temperature"]
    before = hot.setdefault(device, False)
    if temperature is not None:
        hot[device] = temperature > 70 if before else temperature >= 80
    if said.get(device) != hot[device]:
        said[device] = hot[device]
        write("states", ts=row["ts"], device=device, active=hot[device])
