INSERT INTO uplink
SELECT window_start, window_end, count(*) AS n
FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '1' DAY, INTERVAL '6' HOUR)
GROUP BY window_start, window_end;

INSERT INTO lamp
SELECT window_start, sum(count) AS s
FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '1' HOUR, INTERVAL '-70' MINUTE)
GROUP BY window_start;
