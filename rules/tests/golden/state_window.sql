INSERT INTO uplink
SELECT device, window_start, window_end, count(*) AS n, max(temperature) AS peak
FROM STATE_WINDOW(tank PARTITION BY device, running, NOT running)
GROUP BY window_start, window_end, device;
