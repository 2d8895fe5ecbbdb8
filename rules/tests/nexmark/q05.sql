-- The auction with the most bids in the last 10 s, each 2 s. (The original joins the counts with their greatest; of equal ones, the rule takes the first.)
--! lateness = "2s"
CREATE VIEW counts AS
SELECT auction, count(*) AS bids, window_start, window_end
FROM HOP(bid, DESCRIPTOR(ts), INTERVAL '2' SECOND, INTERVAL '10' SECOND)
GROUP BY auction, window_start, window_end;

INSERT INTO uplink
SELECT first_value(auction ORDER BY bids DESC, auction) AS auction, max(bids) AS bids, window_start, window_end
FROM counts
GROUP BY window_start, window_end;
