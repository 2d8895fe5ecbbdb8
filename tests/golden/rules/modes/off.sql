--! mode = "off"
INSERT INTO uplink SELECT device FROM tank;
