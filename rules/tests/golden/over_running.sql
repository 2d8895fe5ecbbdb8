INSERT INTO uplink SELECT device,
  count(*) OVER w AS n, sum(count) OVER w AS s, avg(count) OVER w AS ac, min(temperature) OVER w AS lo, max(temperature) OVER w AS hi, sum(temperature) OVER w AS st,
  count(DISTINCT temperature) OVER w AS kinds, bool_and(running) OVER w AS every_one, median(temperature) OVER w AS m,
  sum(count) OVER (PARTITION BY device ROWS 1 PRECEDING) AS s2, max(temperature) OVER (PARTITION BY device ROWS 1 PRECEDING) AS hi2,
  avg(temperature) FILTER (WHERE running) OVER w AS ar
FROM tank WINDOW w AS (PARTITION BY device);
