-- One second in five spellings: UTC, two offsets, milliseconds and nanoseconds since 1970.
INSERT INTO lamp SELECT ts FROM tank;
INSERT INTO uplink SELECT count(*) AS n FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '1' SECOND) GROUP BY window_start, window_end;
