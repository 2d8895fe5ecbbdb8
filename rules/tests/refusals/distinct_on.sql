INSERT INTO uplink SELECT DISTINCT ON (device) device, temperature FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '1' HOUR)
