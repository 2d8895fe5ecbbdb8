INSERT INTO uplink
SELECT t.count AS n, v.position AS p
FROM tank t FULL JOIN valve v ON t.device = v.device AND v.ts = t.ts;
