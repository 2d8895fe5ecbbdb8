INSERT INTO uplink SELECT count(*) AS n FROM STATE_WINDOW(tank PARTITION BY device, running AND ts < now(), NOT running) GROUP BY window_start, window_end, device
