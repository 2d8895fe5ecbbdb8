-- First: a mean every 10 s. Columns of a derived stream stand in the order of its declaration: ts, then by name.
INSERT INTO hot
SELECT window_end AS ts, device, avg(temperature) AS mean, count(*) AS samples
FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND) GROUP BY window_start, window_end, device;
