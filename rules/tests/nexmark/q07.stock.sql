WITH bids AS (SELECT *, date_bin(INTERVAL '10 seconds', ts, TIMESTAMP '1970-01-01T00:00:00Z') AS window_start FROM bid),
highest AS (SELECT max(price) AS price, window_start FROM bids GROUP BY window_start)
SELECT b.auction, b.price, b.bidder, b.ts
FROM bids AS b JOIN highest AS h ON b.window_start = h.window_start AND b.price = h.price
