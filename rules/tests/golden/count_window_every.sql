INSERT INTO uplink SELECT window_start, window_end, array_agg(count) AS counts, sum(temperature) AS s
FROM COUNT_WINDOW(tank, 3, 2) GROUP BY window_start, window_end;
INSERT INTO lamp SELECT device, window_start, window_end, array_agg(count) AS counts
FROM COUNT_WINDOW(tank PARTITION BY device, 2, 1) GROUP BY window_start, window_end, device;
