-- A recording does not say when its rows came: it is the greatest time so far.
INSERT INTO uplink SELECT count, now() AS seen FROM tank;
INSERT INTO lamp
SELECT window_end, count(*) AS n, now() AS closed
FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND) GROUP BY window_start, window_end;
