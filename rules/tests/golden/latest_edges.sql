--! lateness = "1s"
INSERT INTO uplink SELECT t.ts, t.count AS n, v.position AS p FROM tank t LEFT JOIN valve FOR SYSTEM_TIME AS OF t.ts AS v ON t.device = v.device;
INSERT INTO lamp SELECT t.count AS n, v.position AS p FROM tank t LEFT JOIN valve FOR SYSTEM_TIME AS OF CURRENT_TIMESTAMP AS v ON t.temperature = v.position;
