CREATE VIEW runs AS SELECT ts, temperature FROM SESSION(tank, DESCRIPTOR(ts), INTERVAL '1' MINUTE);
INSERT INTO uplink SELECT avg(temperature) AS t FROM TUMBLE(runs, DESCRIPTOR(ts), INTERVAL '1' HOUR) GROUP BY window_start, window_end
