INSERT INTO lamp SELECT * FROM cooling_pump
