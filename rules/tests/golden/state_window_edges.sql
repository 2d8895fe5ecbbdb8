INSERT INTO uplink
SELECT device, window_start, window_end, count(*) AS n, array_agg(temperature) AS readings
FROM STATE_WINDOW(tank PARTITION BY device, temperature > 80, temperature < 70 OR count = 0)
GROUP BY window_start, window_end, device;
