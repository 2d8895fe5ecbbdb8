INSERT INTO uplink
SELECT window_end, sum(temperature) AS s, max(temperature) AS peak, count(temperature) AS n, count(*) AS all_rows
FROM COUNT_WINDOW(tank, 2)
GROUP BY window_start, window_end;
