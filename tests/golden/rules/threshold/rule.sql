-- More than 80, so 80 itself is not enough; a null is neither more nor less.
INSERT INTO lamp SELECT device, temperature FROM tank WHERE temperature > 80;
