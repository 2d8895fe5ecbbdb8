--! max_ahead = "1m"
INSERT INTO uplink SELECT window_start, count(*) AS n FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND) GROUP BY window_start, window_end;
