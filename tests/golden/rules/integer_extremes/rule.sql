-- 64-bit integers come out as they went in; half of the greatest is rounded towards zero, as SQL divides integers.
INSERT INTO lamp SELECT count, count / 2 AS half, count > 0 AS positive FROM tank;
INSERT INTO uplink SELECT min(count) AS lowest, max(count) AS highest
FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND) GROUP BY window_start, window_end;
