-- A window holds [start, end): its first nanosecond belongs to it, its end to the next one.
INSERT INTO uplink
SELECT window_start, count(*) AS n FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND) GROUP BY window_start, window_end;
