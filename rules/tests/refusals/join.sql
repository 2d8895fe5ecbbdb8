INSERT INTO uplink SELECT a.device FROM tank a JOIN tank b ON a.device = b.device
