INSERT INTO uplink SELECT a.device FROM tank a JOIN valve b ON a.device = b.device AND b.ts BETWEEN a.ts AND a.ts + INTERVAL '1' MONTH
