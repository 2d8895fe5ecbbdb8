WITH people AS (SELECT DISTINCT id, name, date_bin(INTERVAL '10 seconds', ts, TIMESTAMP '1970-01-01T00:00:00Z') AS window_start FROM person),
sellers AS (SELECT DISTINCT seller, date_bin(INTERVAL '10 seconds', ts, TIMESTAMP '1970-01-01T00:00:00Z') AS window_start FROM auction)
SELECT p.id, p.name, p.window_start
FROM people AS p JOIN sellers AS s ON p.id = s.seller AND p.window_start = s.window_start
