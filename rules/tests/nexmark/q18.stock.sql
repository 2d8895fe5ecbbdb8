SELECT auction, bidder, price, channel, ts FROM (
  SELECT *, row_number() OVER (PARTITION BY date_trunc('minute', ts), bidder, auction ORDER BY ts DESC) AS rank_number FROM bid
) WHERE rank_number <= 1
