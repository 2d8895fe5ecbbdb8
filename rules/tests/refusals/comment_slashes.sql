// hot tanks
INSERT INTO uplink SELECT device FROM tank;
