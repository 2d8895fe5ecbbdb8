INSERT INTO uplink
SELECT t.ts AS a, v.ts AS b
FROM tank t LEFT JOIN valve v
ON t.device = v.device AND v.ts BETWEEN t.ts - INTERVAL '1' SECOND AND t.ts + INTERVAL '2' SECOND;
