-- The row of second 11 closes the first window; what comes for it later is late, and is left out.
INSERT INTO uplink
SELECT window_start, sum(count) AS total FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND) GROUP BY window_start, window_end;
