--! emit = "row"
INSERT INTO uplink SELECT count(*) AS n FROM SESSION(tank, DESCRIPTOR(ts), INTERVAL '1' MINUTE) GROUP BY window_start, window_end
