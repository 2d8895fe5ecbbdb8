--! description = "runs"
--! mode = "active"
INSERT INTO lamp SELECT device FROM tank;
