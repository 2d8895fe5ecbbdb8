INSERT INTO uplink SELECT t.device FROM tank t RIGHT JOIN limits l ON t.device = l.device
