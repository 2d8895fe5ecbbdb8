-- between the windows of the first are 3 s of no window; the second has a slide that is no divisor of its size
INSERT INTO uplink SELECT window_start, window_end, count(*) AS n
FROM HOP(tank, DESCRIPTOR(ts), INTERVAL '5' SECOND, INTERVAL '2' SECOND, INTERVAL '1' SECOND) GROUP BY window_start, window_end;
INSERT INTO lamp SELECT window_start, window_end, count(*) AS n, array_agg(count) AS counts
FROM HOP(tank, DESCRIPTOR(ts), INTERVAL '3' SECOND, INTERVAL '5' SECOND) GROUP BY window_start, window_end;
