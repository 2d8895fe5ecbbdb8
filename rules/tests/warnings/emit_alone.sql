--! emit = "row"
INSERT INTO uplink SELECT device FROM tank;
