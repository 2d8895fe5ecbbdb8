-- A window in which no row came writes no row.
INSERT INTO uplink
SELECT window_start, device, count(*) AS n FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '1' HOUR) GROUP BY window_start, window_end, device;
