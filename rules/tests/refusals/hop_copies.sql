INSERT INTO uplink SELECT array_agg(temperature) AS t FROM HOP(tank, DESCRIPTOR(ts), INTERVAL '1' SECOND, INTERVAL '1' DAY) GROUP BY window_start, window_end
