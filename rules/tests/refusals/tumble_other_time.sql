INSERT INTO uplink SELECT count(*) AS n FROM TUMBLE(tank, DESCRIPTOR(arrival), INTERVAL '1' SECOND) GROUP BY window_start
