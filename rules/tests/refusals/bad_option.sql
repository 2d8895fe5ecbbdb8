--! latness = "5s"
INSERT INTO lamp SELECT device FROM tank
