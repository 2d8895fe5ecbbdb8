-- Windows are aligned to 1970-01-01T00:00:00Z on both sides of it: 23:59:59.999 belongs to the window that ends there.
INSERT INTO uplink
SELECT window_start, window_end, count(*) AS n FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '1' MINUTE) GROUP BY window_start, window_end;
