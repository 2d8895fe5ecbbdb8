WITH marked AS (
  SELECT bidder, ts, CASE WHEN lag(ts) OVER (PARTITION BY bidder ORDER BY ts) > ts - INTERVAL '2 seconds' THEN 0 ELSE 1 END AS begins FROM bid
), numbered AS (SELECT bidder, ts, sum(begins) OVER (PARTITION BY bidder ORDER BY ts) AS session FROM marked)
SELECT bidder, count(*) AS bids, min(ts) AS window_start, max(ts) + INTERVAL '2 seconds' AS window_end FROM numbered GROUP BY bidder, session
