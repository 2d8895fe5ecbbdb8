--! state_ttl = "10s"
INSERT INTO uplink
SELECT t.count AS n, v.position AS p
FROM tank t LEFT JOIN valve FOR SYSTEM_TIME AS OF CURRENT_TIMESTAMP AS v ON t.device = v.device;
