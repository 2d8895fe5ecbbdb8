INSERT INTO uplink SELECT device, count(*) AS n FROM SESSION(tank PARTITION BY devise, DESCRIPTOR(ts), INTERVAL '1' MINUTE) GROUP BY window_start, window_end, device
