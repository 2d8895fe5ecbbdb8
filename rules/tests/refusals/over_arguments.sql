INSERT INTO uplink SELECT became(temperature) OVER (PARTITION BY device) AS r FROM tank
