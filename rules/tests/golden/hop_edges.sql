INSERT INTO uplink
SELECT window_start, window_end, device, count(*) AS n, sum(count) AS s, max(temperature) AS peak
FROM HOP(tank, DESCRIPTOR(ts), INTERVAL '2' SECOND, INTERVAL '4' SECOND)
GROUP BY window_start, window_end, device;
