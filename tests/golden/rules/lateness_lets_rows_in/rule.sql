--! lateness = "2s"
-- The watermark is 2 s behind the greatest time: it reaches second 10 with the row of second 12, not with that of second 11.
INSERT INTO uplink
SELECT window_start, sum(count) AS total FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND) GROUP BY window_start, window_end;
