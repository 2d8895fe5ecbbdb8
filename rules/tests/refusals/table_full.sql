INSERT INTO uplink SELECT t.device FROM limits l LEFT JOIN tank t ON t.device = l.device
