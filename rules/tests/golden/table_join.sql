INSERT INTO uplink SELECT t.count AS n, l.area AS a, l.high AS h FROM tank t LEFT JOIN limits l ON l.device = t.device AND t.temperature > l.high;
INSERT INTO lamp SELECT count AS n, (SELECT high FROM limits WHERE area = 'y') AS top FROM tank WHERE device NOT IN (SELECT device FROM limits);
INSERT INTO cooling_pump SELECT t.device, t.count AS n FROM tank t WHERE EXISTS (SELECT 1 FROM limits l WHERE l.high = t.temperature);
