WITH bids AS (
  SELECT auction, date_bin(INTERVAL '2 seconds', ts, TIMESTAMP '1970-01-01T00:00:00Z') - back AS window_start
  FROM bid CROSS JOIN (VALUES
    (INTERVAL '0 seconds'), (INTERVAL '2 seconds'), (INTERVAL '4 seconds'), (INTERVAL '6 seconds'), (INTERVAL '8 seconds')) AS slides(back)
), counts AS (SELECT auction, count(*) AS bids, window_start FROM bids GROUP BY auction, window_start)
SELECT first_value(auction ORDER BY bids DESC, auction) AS auction, max(bids) AS bids, window_start, window_start + INTERVAL '10 seconds' AS window_end
FROM counts GROUP BY window_start
