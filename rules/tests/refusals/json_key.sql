INSERT INTO uplink SELECT device->1.5 AS x FROM tank
