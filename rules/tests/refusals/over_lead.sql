INSERT INTO uplink SELECT lead(temperature) OVER (ORDER BY ts) AS x FROM tank
