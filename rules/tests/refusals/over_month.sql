INSERT INTO uplink SELECT held(running, INTERVAL '1' MONTH) OVER (PARTITION BY device) AS r FROM tank
