CREATE VIEW minutes AS SELECT window_end AS ts, count(*) AS n FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '1' MINUTE) GROUP BY window_start, window_end;
INSERT INTO uplink SELECT window_start, sum(n) AS n FROM TUMBLE(minutes, DESCRIPTOR(ts), INTERVAL '1' HOUR) GROUP BY window_start, window_end;
CREATE VIEW right_minutes AS SELECT window_time AS ts, count(*) AS n FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '1' MINUTE) GROUP BY window_start, window_end;
INSERT INTO uplink SELECT window_start, sum(n) AS n FROM TUMBLE(right_minutes, DESCRIPTOR(ts), INTERVAL '1' HOUR) GROUP BY window_start, window_end;
