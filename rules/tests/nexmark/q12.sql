-- How many bids a person makes in 10 s. (The original goes by processing time; so does a stream whose `ts` is the time of arrival.)
--! lateness = "2s"
INSERT INTO uplink
SELECT bidder, count(*) AS bids, window_start, window_end
FROM TUMBLE(bid, DESCRIPTOR(ts), INTERVAL '10' SECOND)
GROUP BY bidder, window_start, window_end;
