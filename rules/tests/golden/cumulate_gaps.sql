INSERT INTO uplink
SELECT window_start, window_end, device, count(*) AS n, max(temperature) AS peak, count(DISTINCT temperature) AS kinds
FROM CUMULATE(tank, DESCRIPTOR(ts), INTERVAL '1' DAY, INTERVAL '2' DAY)
GROUP BY window_start, window_end, device;
