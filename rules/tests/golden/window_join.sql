INSERT INTO uplink SELECT t.window_end AS t, v.window_end AS v, t.device AS d, v.device AS e, t.n, v.m FROM
  (SELECT window_end, device, count(*) AS n FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND) GROUP BY window_end, device) AS t FULL JOIN
  (SELECT window_end, device, sum(position) AS m FROM TUMBLE(valve, DESCRIPTOR(ts), INTERVAL '10' SECOND) GROUP BY window_end, device) AS v
  ON t.window_end = v.window_end AND t.device = v.device;
INSERT INTO lamp SELECT a.count AS n, b.position AS p FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND) AS a
  RIGHT JOIN TUMBLE(valve, DESCRIPTOR(ts), INTERVAL '10' SECOND) AS b ON a.window_end = b.window_end AND a.device = b.device;
INSERT INTO cooling_pump SELECT a.device, a.count AS n, b.position AS p FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND) AS a
  LEFT JOIN TUMBLE(valve, DESCRIPTOR(ts), INTERVAL '10' SECOND) AS b ON a.window_end = b.window_end AND a.device = b.device AND b.open;
