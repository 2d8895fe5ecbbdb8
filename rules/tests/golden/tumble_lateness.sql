--! lateness = "3s"
INSERT INTO uplink
SELECT window_start, max(temperature) AS peak
FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND)
GROUP BY window_start, window_end;
