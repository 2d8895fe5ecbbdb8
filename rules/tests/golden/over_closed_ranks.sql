INSERT INTO uplink SELECT window_end, device, temperature, row_number() OVER w AS rn, rank() OVER w AS rank, dense_rank() OVER w AS dense, ntile(2) OVER w AS half,
  lead(device) OVER w AS next, round(percent_rank() OVER w, 2) AS pr, last_value(temperature) OVER (PARTITION BY window_end ORDER BY temperature, ts
  ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS top
FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND)
WINDOW w AS (PARTITION BY window_end ORDER BY temperature, ts);
