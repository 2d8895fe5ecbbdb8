INSERT INTO uplink SELECT * FROM tank MATCH_RECOGNIZE (PARTITION BY device ORDER BY ts
  MEASURES COUNT(*) AS n, COUNT(up.*) AS ups, SUM(up.count) AS s, FIRST(up.count, 1) AS second, CLASSIFIER() AS c, MATCH_NUMBER() AS m, PREV(FIRST(up.count)) AS before
  AFTER MATCH SKIP PAST LAST ROW
  PATTERN ((up{2,3}? | flat) down*)
  DEFINE up AS up.temperature > PREV(temperature), flat AS temperature = PREV(temperature), down AS temperature < PREV(temperature));
INSERT INTO lamp SELECT device, count, c FROM tank MATCH_RECOGNIZE (PARTITION BY device ORDER BY ts MEASURES CLASSIFIER() AS c
  ALL ROWS PER MATCH AFTER MATCH SKIP TO NEXT ROW
  PATTERN (PERMUTE(lit, dark) {- any_row -}?)
  DEFINE lit AS running, dark AS NOT running);
