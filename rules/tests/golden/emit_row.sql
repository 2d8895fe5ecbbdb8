--! emit = "row"
INSERT INTO uplink SELECT window_start, device, count(*) AS n, max(temperature) AS hi, avg(count) AS a, array_agg(DISTINCT running) AS kinds
FROM HOP(tank, DESCRIPTOR(ts), INTERVAL '5' SECOND, INTERVAL '10' SECOND) GROUP BY window_start, window_end, device;
