--! lateness = "3s"
INSERT INTO uplink
SELECT * FROM tank MATCH_RECOGNIZE (
  ORDER BY ts
  MEASURES A.count AS a, B.count AS b, MATCH_NUMBER() AS number
  PATTERN (A B)
  DEFINE A AS A.temperature > 0, B AS B.temperature > A.temperature
);
