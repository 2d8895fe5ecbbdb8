INSERT INTO uplink SELECT lag(temperature, -1) OVER (ORDER BY ts) AS x FROM tank
