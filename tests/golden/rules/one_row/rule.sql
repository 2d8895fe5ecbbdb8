-- The end of the recording closes the window.
INSERT INTO uplink SELECT window_end AS ts, count(*) AS n FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '1' DAY) GROUP BY window_start, window_end;
