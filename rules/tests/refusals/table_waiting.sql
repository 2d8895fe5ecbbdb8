INSERT INTO uplink SELECT t.device FROM tank t JOIN settings s ON s.device = t.device
