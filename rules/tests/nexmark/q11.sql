-- How many bids a person makes in one go: until there is none for 2 s. (The original has 10 s, for people who bid less often.)
--! lateness = "2s"
INSERT INTO uplink
SELECT bidder, count(*) AS bids, window_start, window_end
FROM SESSION(bid PARTITION BY bidder, DESCRIPTOR(ts), INTERVAL '2' SECOND)
GROUP BY bidder, window_start, window_end;
