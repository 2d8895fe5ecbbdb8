INSERT INTO uplink SELECT hystersis(temperature, 70, 80) OVER (PARTITION BY device) AS r FROM tank
