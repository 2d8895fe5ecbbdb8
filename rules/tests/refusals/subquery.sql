INSERT INTO uplink SELECT count(*) FILTER (WHERE temperature > (SELECT high FROM limits)) AS n FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '1' SECOND) GROUP BY window_start
