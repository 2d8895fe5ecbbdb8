INSERT INTO uplink SELECT t.device FROM tank t JOIN valve FOR SYSTEM_TIME AS OF v.ts AS v ON t.device = v.device
