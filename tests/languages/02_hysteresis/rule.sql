-- Says when a tank gets hot, and when it has cooled down.
CREATE VIEW tanks AS
SELECT ts, device, hysteresis(temperature, 70, 80) OVER (PARTITION BY device) AS active FROM tank;

INSERT INTO states SELECT ts, device, active FROM tanks QUALIFY changed(active) OVER (PARTITION BY device);
