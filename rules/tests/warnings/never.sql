INSERT INTO uplink SELECT device FROM tank WHERE temperature BETWEEN 80 AND 70;
INSERT INTO uplink SELECT device FROM tank WHERE temperature > 80 AND temperature < 70;
INSERT INTO uplink SELECT device FROM tank WHERE date_part('hour', ts) BETWEEN 22 AND 6;
INSERT INTO uplink SELECT device FROM tank WHERE temperature > 70 AND temperature < 80 AND count BETWEEN 1 AND 2;
