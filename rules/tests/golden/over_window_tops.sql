INSERT INTO uplink SELECT window_end, device, mean, place FROM (
  SELECT window_end, device, avg(temperature) AS mean, row_number() OVER (PARTITION BY window_start, window_end ORDER BY avg(temperature) DESC) AS place
  FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND) GROUP BY window_start, window_end, device) AS means
WHERE place <= 2;
