INSERT INTO uplink SELECT count(*) AS n FROM STATE_WINDOW(tank, running) GROUP BY window_start, window_end
