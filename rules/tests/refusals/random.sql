INSERT INTO uplink SELECT device FROM tank WHERE random() > 0.5
