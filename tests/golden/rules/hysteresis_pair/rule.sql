-- On above 80, off below 70, nothing in between. Both statements see the same rows; what they write keeps the order of its causes.
INSERT INTO pump SELECT device, TRUE AS run FROM tank WHERE temperature > 80;
INSERT INTO pump SELECT device, FALSE AS run FROM tank WHERE temperature < 70;
