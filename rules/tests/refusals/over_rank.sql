INSERT INTO uplink SELECT rank() OVER (ORDER BY ts) AS x FROM tank
