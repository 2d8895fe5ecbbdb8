INSERT INTO uplink SELECT window_start, window_end, count(*) AS n
FROM SESSION(tank, DESCRIPTOR(ts), INTERVAL '5' SECOND) GROUP BY window_start, window_end;
INSERT INTO lamp SELECT count, window_start, window_end
FROM SESSION(tank PARTITION BY running, DESCRIPTOR(ts), INTERVAL '5' SECOND);
