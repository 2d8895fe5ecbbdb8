INSERT INTO uplink SELECT device, count(*) AS n FROM TUMBLE(TABLE tank PARTITION BY device, DESCRIPTOR(ts), INTERVAL '1' MINUTE) GROUP BY window_start, window_end, device
