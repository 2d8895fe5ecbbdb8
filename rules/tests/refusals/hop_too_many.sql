INSERT INTO uplink SELECT avg(temperature) AS t FROM HOP(tank, DESCRIPTOR(ts), INTERVAL '1' MILLISECOND, INTERVAL '1' DAY) GROUP BY window_start, window_end
