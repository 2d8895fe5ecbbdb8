-- The highest bids of each 10 s.
--! lateness = "2s"
CREATE VIEW highest AS
SELECT max(price) AS price, window_end
FROM TUMBLE(bid, DESCRIPTOR(ts), INTERVAL '10' SECOND)
GROUP BY window_start, window_end;

INSERT INTO uplink
SELECT b.auction, b.price, b.bidder, b.ts
FROM TUMBLE(bid, DESCRIPTOR(ts), INTERVAL '10' SECOND) AS b
JOIN highest AS h ON b.window_end = h.window_end AND b.price = h.price;
