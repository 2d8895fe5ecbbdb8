--! late_rows = "hot"
INSERT INTO uplink SELECT count(*) AS n FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '1' MINUTE) GROUP BY window_start, window_end
