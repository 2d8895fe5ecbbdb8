INSERT INTO uplink SELECT window_end, count(*) AS n FROM CUMULATE(tank, DESCRIPTOR(ts), INTERVAL '7' SECOND, INTERVAL '1' MINUTE) GROUP BY window_start, window_end
