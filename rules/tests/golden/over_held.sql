--! idle_after = "1s"
INSERT INTO uplink SELECT ts, device, temperature, held(temperature > 80, INTERVAL '5' SECOND) OVER (PARTITION BY device) AS hot FROM tank;
