-- Aggregates leave nulls out, and are null when nothing is left; count(*) counts rows; null is a key like any other.
INSERT INTO uplink
SELECT device, count(*) AS n, count(temperature) AS values, sum(temperature) AS total, avg(temperature) AS mean, bool_or(ok) AS any_ok
FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND)
GROUP BY window_start, window_end, device;
