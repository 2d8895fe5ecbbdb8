INSERT INTO uplink SELECT temperature->'a' AS x FROM tank
