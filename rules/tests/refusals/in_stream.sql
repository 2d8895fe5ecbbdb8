INSERT INTO uplink SELECT device FROM tank WHERE device IN (SELECT device FROM valve)
