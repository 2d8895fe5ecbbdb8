INSERT INTO uplink
SELECT window_start, min(count) AS low, max(count) AS high, max(temperature) AS peak, min(temperature) AS trough, avg(temperature) AS mean
FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND)
GROUP BY window_start, window_end;
