-- rows that wait pass when they go on: a pair when it is made, a row without a partner when none can come any more
INSERT INTO uplink
SELECT t.count AS n, v.position AS p, date_part('hour', now()) AS hour
FROM tank t
LEFT JOIN valve v ON v.device = t.device AND v.ts BETWEEN t.ts AND t.ts + INTERVAL '5' SECOND AND date_part('hour', now()) < 4;
-- and rows of a window that ends by its rows when it closes
INSERT INTO lamp
SELECT count(*) AS n, date_part('hour', now()) AS hour
FROM SESSION(tank PARTITION BY device, DESCRIPTOR(ts), INTERVAL '10' SECOND)
WHERE date_part('hour', now()) > count
GROUP BY window_start, window_end, device;
