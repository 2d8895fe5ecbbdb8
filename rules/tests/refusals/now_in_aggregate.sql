INSERT INTO uplink SELECT max(date_part('hour', now())) AS h FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND) GROUP BY window_start, window_end
