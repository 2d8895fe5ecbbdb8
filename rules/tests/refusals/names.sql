INSERT INTO uplink SELECT device FROM tank WHERE device = "press";
INSERT INTO uplink SELECT "Temperature" FROM tank;
INSERT INTO uplink SELECT time, device FROM tank;
INSERT INTO uplink SELECT device, temperature > 80 FROM tank;
INSERT INTO lamp SELECT device, count(*) FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '1' SECOND) GROUP BY window_start, window_end, device;
INSERT INTO uplink SELECT temperature AS x, count AS x FROM tank;
INSERT INTO uplink SELECT * FROM (SELECT avg(temperature) FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '1' SECOND) GROUP BY window_start, window_end) AS t;
INSERT INTO uplink SELECT device, avg(temperature) AS m FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '1' SECOND) GROUP BY window_start, window_end;
INSERT INTO uplink SELECT 5 FROM tank;
