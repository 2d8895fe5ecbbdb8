-- Second: the greatest mean of a minute. Its windows go by the times of the means, the ends of their windows.
INSERT INTO hottest
SELECT window_end AS ts, device, max(mean) AS mean
FROM TUMBLE(hot, DESCRIPTOR(ts), INTERVAL '1' MINUTE) GROUP BY window_start, window_end, device;
