INSERT INTO uplink SELECT device, now() AS t FROM tank
