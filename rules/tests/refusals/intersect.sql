INSERT INTO uplink SELECT device FROM tank INTERSECT SELECT device FROM valve
