INSERT INTO uplink SELECT device FROM tank UNION SELECT device FROM valve
