INSERT INTO uplink SELECT count(*) AS n FROM COUNT_WINDOW(tank, 10, 20) GROUP BY window_start, window_end
