--! lateness = "1s"
--! late_rows = "lamp"
INSERT INTO uplink SELECT window_end, count(*) AS n FROM SESSION(tank PARTITION BY device, DESCRIPTOR(ts), INTERVAL '5' SECOND) WHERE temperature > 0 GROUP BY window_start, window_end, device;
INSERT INTO cooling_pump SELECT device, count(*) AS n FROM CUMULATE(tank, DESCRIPTOR(ts), INTERVAL '1' SECOND, INTERVAL '3' SECOND) GROUP BY window_start, window_end, device;
