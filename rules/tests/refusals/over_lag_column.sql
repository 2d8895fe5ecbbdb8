INSERT INTO uplink SELECT lag(temperature, count) OVER (ORDER BY ts) AS x FROM tank
