--! lateness = "2s"
--! late_rows = "late"
INSERT INTO means
SELECT window_start AS ts, device, avg(temperature) AS mean, count(*) AS n
FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND)
WHERE temperature IS NOT NULL
GROUP BY window_start, window_end, device;
