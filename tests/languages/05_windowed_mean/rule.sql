-- The mean of ten seconds. A window closes with the first row of a later time, whatever that row says.
CREATE VIEW valid AS SELECT ts, device, temperature FROM tank WHERE temperature IS NOT NULL;

INSERT INTO means
SELECT window_start AS ts, device, avg(temperature) AS mean, count(*) AS n
FROM TUMBLE(valid, DESCRIPTOR(ts), INTERVAL '10' SECOND)
GROUP BY window_start, window_end, device;
