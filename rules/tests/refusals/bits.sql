INSERT INTO uplink SELECT temperature ^ 2 AS x FROM tank;
INSERT INTO uplink SELECT count & 1.5 AS x FROM tank;
INSERT INTO uplink SELECT device FROM tank WHERE temperature | count > 3;
INSERT INTO uplink SELECT temperature << 2 AS x, count >> 2 AS y FROM tank;
INSERT INTO uplink SELECT 1 >> temperature AS x FROM tank;
INSERT INTO uplink SELECT device FROM tank WHERE running & (count > 3);
INSERT INTO uplink SELECT device FROM tank WHERE running | (count > 3);
INSERT INTO uplink SELECT device | device AS x FROM tank;
