WITH bids AS (SELECT *, date_bin(INTERVAL '10 seconds', ts, TIMESTAMP '1970-01-01T00:00:00Z') AS window_start FROM bid)
SELECT bidder, count(*) AS bids, window_start, window_start + INTERVAL '10 seconds' AS window_end FROM bids GROUP BY bidder, window_start
