INSERT INTO uplink SELECT device FROM tank WHERE ts > now() - INTERVAL '10' SEC;
