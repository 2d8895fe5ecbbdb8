INSERT INTO uplink SELECT t.count AS n, v.position AS p FROM tank t JOIN valve v ON t.device = v.device AND v.ts BETWEEN t.ts AND t.ts;
INSERT INTO lamp SELECT t.count AS n, v.position AS p FROM tank t RIGHT JOIN valve v ON v.ts - t.ts BETWEEN INTERVAL '-1' SECOND AND INTERVAL '-1' SECOND AND t.temperature < v.position;
