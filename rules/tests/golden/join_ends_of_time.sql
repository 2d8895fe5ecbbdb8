INSERT INTO uplink SELECT t.count AS n, v.position AS p FROM tank t FULL JOIN valve v ON v.ts BETWEEN t.ts - INTERVAL '5' SECOND AND t.ts + INTERVAL '5' SECOND;
