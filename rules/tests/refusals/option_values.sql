--! priority = "high"
--! mode = "off"
--! mode = "shadow"
INSERT INTO lamp SELECT device FROM tank;
