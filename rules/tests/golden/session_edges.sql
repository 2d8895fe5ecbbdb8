--! lateness = "1s"
INSERT INTO uplink
SELECT device, window_start, window_end, count(*) AS n, avg(temperature) AS mean
FROM SESSION(tank PARTITION BY device, DESCRIPTOR(ts), INTERVAL '2' SECOND)
GROUP BY window_start, window_end, device;
