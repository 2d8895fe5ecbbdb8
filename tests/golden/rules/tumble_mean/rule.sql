-- One row a window and device. Devices come in the order in which the window first saw them.
INSERT INTO uplink
SELECT window_start, window_end, device, avg(temperature) AS mean, min(temperature) AS lowest, max(temperature) AS highest, count(*) AS n
FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND)
GROUP BY window_start, window_end, device;
