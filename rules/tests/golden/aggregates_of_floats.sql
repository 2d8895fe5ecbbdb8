INSERT INTO uplink
SELECT device, count(temperature) AS n, sum(temperature) AS s, avg(temperature) AS a, min(temperature) AS lo, max(temperature) AS hi, median(temperature) AS m,
  percentile_cont(0.5) WITHIN GROUP (ORDER BY temperature) AS p, approx_percentile_cont(0.5) WITHIN GROUP (ORDER BY temperature) AS ap
FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '1' MINUTE) GROUP BY window_start, window_end, device;

-- without numbers whose squares have no room
INSERT INTO lamp
SELECT device, stddev(temperature) AS sd, stddev_pop(temperature) AS sdp, var_samp(temperature) AS v, var_pop(temperature) AS vp, count(DISTINCT temperature) AS kinds,
  sum(DISTINCT temperature) AS ds, avg(temperature) FILTER (WHERE NOT isnan(temperature)) AS real, array_agg(temperature ORDER BY temperature DESC NULLS LAST) AS list
FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '1' MINUTE) WHERE device <> 'huge' GROUP BY window_start, window_end, device;
