-- Sessions end anywhere; a window above waits for them.
CREATE VIEW talks AS SELECT window_time AS ts, device, count(*) AS n
FROM SESSION(tank PARTITION BY device, DESCRIPTOR(ts), INTERVAL '4' SECOND) GROUP BY window_start, window_end, device;

INSERT INTO uplink SELECT window_end, sum(n) AS n
FROM TUMBLE(talks, DESCRIPTOR(ts), INTERVAL '10' SECOND) GROUP BY window_end;

INSERT INTO lamp SELECT ts, window_time FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND);
