INSERT INTO uplink
SELECT window_start, window_end, count(*) AS n, min(count) AS low
FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND)
GROUP BY window_start, window_end;

INSERT INTO lamp
SELECT window_start, window_end, array_agg(count) AS counts
FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND)
GROUP BY window_start, window_end;
