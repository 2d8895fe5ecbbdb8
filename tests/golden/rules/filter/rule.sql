-- FILTER chooses the rows of one aggregate, WHERE those of all: rows that are not ok are in none.
INSERT INTO uplink
SELECT count(*) AS n, count(*) FILTER (WHERE temperature > 80) AS hot, sum(temperature) FILTER (WHERE temperature < 0) AS cold
FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND)
WHERE ok
GROUP BY window_start, window_end;
