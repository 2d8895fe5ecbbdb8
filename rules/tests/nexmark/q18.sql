-- The last bid of each person on each auction, of one minute. (The original never ends.)
--! lateness = "2s"
CREATE VIEW ranked AS
SELECT *, row_number() OVER (PARTITION BY window_start, window_end, bidder, auction ORDER BY ts DESC) AS rank_number
FROM TUMBLE(bid, DESCRIPTOR(ts), INTERVAL '1' MINUTE);

INSERT INTO uplink SELECT auction, bidder, price, channel, ts FROM ranked WHERE rank_number <= 1;
