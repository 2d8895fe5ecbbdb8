INSERT INTO uplink SELECT window_start, window_end, count(*) AS n
FROM HOP(tank, DESCRIPTOR(ts), INTERVAL '5' SECOND, INTERVAL '10' SECOND) GROUP BY window_start, window_end;
INSERT INTO lamp SELECT window_start, window_end, count(*) AS n
FROM CUMULATE(tank, DESCRIPTOR(ts), INTERVAL '5' SECOND, INTERVAL '10' SECOND) GROUP BY window_start, window_end;
