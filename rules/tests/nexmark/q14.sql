-- Computation: time of day, and how often a letter stands in a text.
INSERT INTO uplink
SELECT
  auction, bidder, 0.908 * price AS price,
  CASE
    WHEN date_part('hour', ts) BETWEEN 8 AND 18 THEN 'day'
    WHEN date_part('hour', ts) <= 6 OR date_part('hour', ts) >= 20 THEN 'night'
    ELSE 'other'
  END AS bid_time,
  length(url) - length(replace(url, 'c', '')) AS c_counts
FROM bid
WHERE 0.908 * price > 1000 AND 0.908 * price < 50000;
