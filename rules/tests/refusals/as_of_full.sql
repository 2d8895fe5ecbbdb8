INSERT INTO uplink SELECT t.device FROM tank t FULL JOIN valve FOR SYSTEM_TIME AS OF t.ts AS v ON t.device = v.device
