-- The greatest is NaN if there is one, in whichever order they come; the least only if there is nothing else.
INSERT INTO uplink SELECT window_start, max(temperature) AS most, min(temperature) AS least, count(DISTINCT temperature) AS kinds
FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND) GROUP BY window_start, window_end;

INSERT INTO lamp SELECT temperature, count(*) AS n
FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND) GROUP BY window_start, window_end, temperature;

INSERT INTO cooling_pump SELECT device, max(temperature) OVER (PARTITION BY temperature) AS most, min(temperature) OVER () AS least FROM tank;
