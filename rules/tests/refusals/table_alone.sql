INSERT INTO uplink SELECT device FROM limits
