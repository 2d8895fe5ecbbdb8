SELECT auction, bidder, price, ts, rank_number FROM (
  SELECT *, row_number() OVER (PARTITION BY date_trunc('minute', ts), auction ORDER BY price DESC, ts) AS rank_number FROM bid
) WHERE rank_number <= 10
