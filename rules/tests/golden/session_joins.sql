--! lateness = "10s"
INSERT INTO uplink
SELECT device, window_start, window_end, count(*) AS n, sum(count) AS s, string_agg(CAST(count AS TEXT), ',') AS counts
FROM SESSION(tank PARTITION BY device, DESCRIPTOR(ts), INTERVAL '5' SECOND)
GROUP BY window_start, window_end, device;
