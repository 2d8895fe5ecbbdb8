INSERT INTO uplink SELECT device FROM tank WHERE temperature > (SELECT max(position) FROM valve)
