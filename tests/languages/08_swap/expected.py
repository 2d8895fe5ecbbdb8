from case import rows, write

hot, said = {}, {}
for number, row in enumerate(rows()):
    low, high = (70, 80) if number < 6 else (40, 60)
    device, temperature = row["device"], row["temperature"]
    hot[device] = temperature > low if hot.get(device, False) else temperature >= high
    if said.get(device) != hot[device]:
        said[device] = hot[device]
        write("states", ts=row["ts"], device=device, active=hot[device])
