INSERT INTO limits SELECT device FROM tank
