-- Statistics of an auction, a day.
--! lateness = "2s"
INSERT INTO uplink
SELECT
  auction, window_start AS day,
  count(*) AS total_bids,
  count(*) FILTER (WHERE price < 10000) AS rank1_bids,
  min(price) AS min_price, max(price) AS max_price, avg(price) AS avg_price, sum(price) AS sum_price
FROM TUMBLE(bid, DESCRIPTOR(ts), INTERVAL '1' DAY)
GROUP BY auction, window_start, window_end;
