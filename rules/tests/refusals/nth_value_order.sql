INSERT INTO uplink SELECT nth_value(temperature, 2 ORDER BY ts) AS t FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '1' HOUR) GROUP BY window_start, window_end
