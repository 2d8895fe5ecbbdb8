INSERT INTO uplink
SELECT window_start, window_end, device, count(*) AS n, sum(count) AS s
FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND)
GROUP BY window_start, window_end, device;
