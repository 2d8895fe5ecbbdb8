--! idle_after = "1s"
INSERT INTO uplink
SELECT * FROM tank MATCH_RECOGNIZE (
  PARTITION BY device
  ORDER BY ts
  MEASURES LAST(ts) AS ts, COUNT(*) AS n
  PATTERN (on_row{2}) WITHIN INTERVAL '10' SECOND
  NOT FOLLOWED BY off_row WITHIN INTERVAL '5' SECOND
  DEFINE on_row AS running, off_row AS NOT running
);
