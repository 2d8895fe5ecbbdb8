INSERT INTO uplink SELECT device FROM tank WHERE temperature > (SELECT 5)
