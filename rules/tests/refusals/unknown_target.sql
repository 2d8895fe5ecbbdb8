INSERT INTO coling_pump SELECT device FROM tank
