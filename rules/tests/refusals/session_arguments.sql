INSERT INTO uplink SELECT count(*) AS n FROM SESSION(tank PARTITION BY device) GROUP BY window_start, window_end
