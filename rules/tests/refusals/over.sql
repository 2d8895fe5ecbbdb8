INSERT INTO uplink SELECT sum(temperature) OVER (PARTITION BY device) AS x FROM tank
