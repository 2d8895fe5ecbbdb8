INSERT INTO joined
SELECT t.ts, t.device, t.temperature, v.position, v.open
FROM tank t
LEFT JOIN valve FOR SYSTEM_TIME AS OF CURRENT_TIMESTAMP AS v ON t.device = v.device;
