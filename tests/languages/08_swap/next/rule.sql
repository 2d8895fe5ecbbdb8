CREATE VIEW tanks AS
SELECT ts, device, hysteresis(temperature, 40, 60) OVER (PARTITION BY device) AS active FROM tank;

INSERT INTO states SELECT ts, device, active FROM tanks QUALIFY changed(active) OVER (PARTITION BY device);
