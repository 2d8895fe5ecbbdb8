-- Two window sizes over one stream: rows come in the order in which windows close, the shorter one first when both close at once.
INSERT INTO uplink SELECT '5s' AS size, window_start, sum(count) AS total
FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '5' SECOND) GROUP BY window_start, window_end;
INSERT INTO uplink SELECT '10s' AS size, window_start, sum(count) AS total
FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND) GROUP BY window_start, window_end;
