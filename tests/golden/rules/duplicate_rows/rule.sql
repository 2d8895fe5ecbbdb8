-- Equal rows are different events: nothing is dropped.
INSERT INTO lamp SELECT device, temperature FROM tank;
INSERT INTO uplink SELECT count(*) AS n, count(DISTINCT temperature) AS kinds
FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND) GROUP BY window_start, window_end;
