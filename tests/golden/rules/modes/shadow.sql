--! mode = "shadow"
INSERT INTO pump SELECT device FROM tank;
