INSERT INTO uplink SELECT window_start, count(*) AS n FROM HOP(tank, DESCRIPTOR(ts), INTERVAL '0' MINUTE, INTERVAL '1' MINUTE) GROUP BY window_start, window_end;
