INSERT INTO uplink SELECT device FROM tank t WHERE EXISTS (SELECT 1 FROM valve v WHERE v.device = t.device)
