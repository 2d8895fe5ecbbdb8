INSERT INTO uplink SELECT window_start, count(*) AS n FROM HOP(tank, DESCRIPTOR(ts), INTERVAL '1' MINUTE, INTERVAL '10' SECOND) GROUP BY window_start, window_end;
