INSERT INTO uplink SELECT device FROM tank ORDER BY ts
