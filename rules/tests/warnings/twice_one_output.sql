-- A pair of on and off is meant; each row saying both is not.
INSERT INTO lamp SELECT device FROM tank WHERE temperature > 80;
INSERT INTO lamp SELECT device FROM tank WHERE temperature < 70;
CREATE VIEW warm AS SELECT device FROM tank WHERE temperature > 90;
INSERT INTO lamp SELECT device FROM warm;
INSERT INTO lamp SELECT device, TRUE AS run FROM tank;
INSERT INTO lamp SELECT device, FALSE AS run FROM tank;
