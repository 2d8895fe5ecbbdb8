INSERT INTO uplink SELECT t.device FROM tank t JOIN valve FOR SYSTEM_TIME AS OF t.count AS v ON t.device = v.device
