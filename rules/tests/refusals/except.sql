INSERT INTO uplink SELECT device FROM tank EXCEPT SELECT device FROM valve
