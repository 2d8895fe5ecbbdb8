CREATE VIEW l AS SELECT to_local_time(ts AT TIME ZONE 'Europe/Berlin') AS ts, count FROM tank;
INSERT INTO uplink SELECT window_start, sum(count) AS n FROM TUMBLE(l, DESCRIPTOR(ts), INTERVAL '1' DAY) GROUP BY window_start, window_end;
CREATE VIEW t AS SELECT device AS ts, count FROM tank;
INSERT INTO uplink SELECT window_start, sum(count) AS n FROM TUMBLE(t, DESCRIPTOR(ts), INTERVAL '1' DAY) GROUP BY window_start, window_end;
