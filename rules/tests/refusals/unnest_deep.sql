INSERT INTO uplink SELECT unnest(unnest([readings])) AS x FROM valve
