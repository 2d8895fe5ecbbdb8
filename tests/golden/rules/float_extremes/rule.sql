-- The sum of the window leaves the range of doubles: JSON has no infinity, so it is null. Negative zero keeps its sign.
INSERT INTO lamp SELECT temperature, temperature = 0 AS zero FROM tank;
INSERT INTO uplink SELECT max(temperature) AS highest, min(temperature) AS lowest, sum(temperature) AS total
FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND) GROUP BY window_start, window_end;
