INSERT INTO uplink SELECT count MOD 7 AS x FROM tank;
