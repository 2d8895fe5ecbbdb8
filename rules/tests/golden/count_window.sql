INSERT INTO uplink
SELECT device, window_start, window_end, count(*) AS n, sum(count) AS s
FROM COUNT_WINDOW(tank PARTITION BY device, 2)
GROUP BY window_start, window_end, device;
