INSERT INTO uplink SELECT a.device FROM tank a JOIN (SELECT device FROM valve) b ON a.device = b.device AND a.ts > a.ts - INTERVAL '5' SECOND
