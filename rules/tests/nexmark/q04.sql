-- Average winning price of a category, of bids in one minute: a window over a join, and a window over that.
--! lateness = "2s"
CREATE VIEW offered AS
SELECT b.ts AS ts, a.id AS id, a.category AS category, b.price AS price
FROM auction AS a JOIN bid AS b ON a.id = b.auction AND b.ts BETWEEN a.ts AND a.ts + INTERVAL '20' SECOND
WHERE b.ts <= a.expires;

CREATE VIEW won AS
SELECT window_start AS ts, id, category, max(price) AS final
FROM TUMBLE(offered, DESCRIPTOR(ts), INTERVAL '1' MINUTE)
GROUP BY window_start, window_end, id, category;

INSERT INTO uplink
SELECT window_start, category, avg(final) AS final
FROM TUMBLE(won, DESCRIPTOR(ts), INTERVAL '1' MINUTE)
GROUP BY window_start, window_end, category;
