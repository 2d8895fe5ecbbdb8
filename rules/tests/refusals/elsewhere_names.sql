INSERT INTO uplink SELECT [device] FROM tank;
INSERT INTO uplink SELECT device FROM tank WHERE [temperature] > 80;
INSERT INTO uplink SELECT `device` FROM tank WHERE `temprature` > 80;
