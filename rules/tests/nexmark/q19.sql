-- The ten highest bids of each auction, of one minute. (The original never ends.)
--! lateness = "2s"
CREATE VIEW ranked AS
SELECT *, row_number() OVER (PARTITION BY window_start, window_end, auction ORDER BY price DESC, ts) AS rank_number
FROM TUMBLE(bid, DESCRIPTOR(ts), INTERVAL '1' MINUTE);

INSERT INTO uplink SELECT auction, bidder, price, ts, rank_number FROM ranked WHERE rank_number <= 10;
