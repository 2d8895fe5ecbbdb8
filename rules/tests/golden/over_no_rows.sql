INSERT INTO uplink SELECT lag(temperature) OVER (PARTITION BY device ORDER BY ts) AS x, held(running, INTERVAL '1' SECOND) OVER () AS y FROM tank;
