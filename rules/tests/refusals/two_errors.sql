INSERT INTO lamp SELECT devce FROM tank;
INSERT INTO lmp SELECT device FROM tank
