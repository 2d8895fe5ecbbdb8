INSERT INTO uplink SELECT ewma(temperature, 2) OVER (PARTITION BY device) AS r FROM tank
