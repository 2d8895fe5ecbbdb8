INSERT INTO uplink SELECT window_start, device, count(*) AS n FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '1' HOUR) GROUP BY GROUPING SETS ((window_start, device), (window_start))
