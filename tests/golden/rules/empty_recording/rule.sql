INSERT INTO lamp SELECT device FROM tank;
INSERT INTO uplink SELECT count(*) AS n FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND) GROUP BY window_start, window_end;
