INSERT INTO uplink SELECT unnest(temperature) AS x FROM tank
