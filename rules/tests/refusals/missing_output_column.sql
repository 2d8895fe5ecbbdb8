INSERT INTO cooling_pump SELECT TRUE AS run FROM tank
