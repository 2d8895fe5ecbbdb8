INSERT INTO uplink SELECT lag(temperature) OVER (w ORDER BY ts) AS r FROM tank WINDOW w AS (PARTITION BY device)
