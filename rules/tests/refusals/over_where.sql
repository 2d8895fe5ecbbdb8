INSERT INTO uplink SELECT device FROM tank WHERE became(temperature > 80) OVER (PARTITION BY device)
