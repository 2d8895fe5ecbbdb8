INSERT INTO uplink SELECT changed(avg(temperature)) OVER (PARTITION BY window_start, device) AS r FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '1' SECOND) GROUP BY window_start, window_end, device
