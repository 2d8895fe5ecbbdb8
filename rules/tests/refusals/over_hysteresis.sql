INSERT INTO uplink SELECT hysteresis(temperature, 80, 70) OVER (PARTITION BY device) AS r FROM tank
