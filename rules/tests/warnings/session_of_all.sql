INSERT INTO uplink SELECT window_end AS ts, device, count(*) AS n
FROM SESSION(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND)
GROUP BY device, window_start, window_end;
INSERT INTO uplink SELECT device, count(*) AS n FROM COUNT_WINDOW(tank, 3) GROUP BY window_start, window_end, device;
