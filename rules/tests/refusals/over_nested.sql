INSERT INTO uplink SELECT device FROM tank QUALIFY became(held(temperature > 80, INTERVAL '5' SECOND) OVER (PARTITION BY device)) OVER (PARTITION BY device)
