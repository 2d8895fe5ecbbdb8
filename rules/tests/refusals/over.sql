INSERT INTO uplink SELECT sum(temperature) OVER (PARTITION BY device ORDER BY temperature) AS x FROM tank
