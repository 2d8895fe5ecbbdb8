INSERT INTO lamp SELECT device FROM tank WHERE temperature > 80;
INSERT INTO lamp SELECT device FROM tank WHERE temperature < 70;
