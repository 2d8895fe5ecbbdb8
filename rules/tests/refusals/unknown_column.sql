INSERT INTO lamp
SELECT temprature FROM tank
