CREATE VIEW minutes AS SELECT ts, window_start, window_end FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '1' MINUTE);
INSERT INTO uplink SELECT count(*) AS n FROM TUMBLE(minutes, DESCRIPTOR(ts), INTERVAL '1' HOUR) GROUP BY window_start, window_end
