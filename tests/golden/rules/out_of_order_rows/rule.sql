-- Rows of an open window count in any order.
INSERT INTO uplink
SELECT window_start, count(*) AS n, sum(count) AS total
FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND) GROUP BY window_start, window_end;
