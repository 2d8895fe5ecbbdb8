-- Bids on auctions of category 10, with the auction. (The original keeps all auctions for ever; here for an hour.)
--! lateness = "2s"
INSERT INTO uplink
SELECT b.auction, b.bidder, b.price, b.ts, a.item_name, a.seller, a.expires
FROM bid AS b
INNER JOIN auction AS a ON b.auction = a.id AND a.ts BETWEEN b.ts - INTERVAL '1' HOUR AND b.ts + INTERVAL '2' SECOND
WHERE a.category = 10;
