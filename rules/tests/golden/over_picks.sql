INSERT INTO uplink SELECT
  lag(count) OVER w AS l, lag(count, 2, -1) OVER w AS l2, lag(count) IGNORE NULLS OVER w AS ln, lag(count, 0) OVER w AS l0, first_value(count) OVER w AS f,
  first_value(count) IGNORE NULLS OVER w AS fn, last_value(count) IGNORE NULLS OVER w AS ll, nth_value(count, 2) OVER w AS n2,
  nth_value(count, 2) IGNORE NULLS OVER w AS n2n, last_value(count) OVER (PARTITION BY device ROWS BETWEEN 2 PRECEDING AND 1 PRECEDING) AS b,
  nth_value(count, 3) OVER (PARTITION BY device ROWS 2 PRECEDING) AS n3, row_number() OVER w AS rn
FROM tank WINDOW w AS (PARTITION BY device);
