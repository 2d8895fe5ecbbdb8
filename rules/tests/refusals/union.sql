INSERT INTO uplink SELECT device FROM tank UNION ALL SELECT device FROM tank
