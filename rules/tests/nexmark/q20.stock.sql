SELECT b.auction, b.bidder, b.price, b.ts, a.item_name, a.seller, a.expires
FROM bid AS b INNER JOIN auction AS a ON b.auction = a.id
WHERE a.category = 10
