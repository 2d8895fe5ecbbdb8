INSERT INTO uplink SELECT device FROM tank
INSERT INTO lamp SELECT device FROM tank;
