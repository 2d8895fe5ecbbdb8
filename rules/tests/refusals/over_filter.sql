INSERT INTO uplink SELECT lag(temperature) FILTER (WHERE running) OVER (PARTITION BY device) AS r FROM tank
