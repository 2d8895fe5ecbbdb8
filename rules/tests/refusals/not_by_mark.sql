INSERT INTO uplink SELECT device FROM tank WHERE !(temperature > 80);
