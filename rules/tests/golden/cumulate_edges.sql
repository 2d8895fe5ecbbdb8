INSERT INTO uplink
SELECT window_start, window_end, count(*) AS n, sum(count) AS s
FROM CUMULATE(tank, DESCRIPTOR(ts), INTERVAL '1' SECOND, INTERVAL '3' SECOND)
GROUP BY window_start, window_end;
