-- The same for all that goes by the time of a view.
CREATE VIEW timed AS SELECT CASE WHEN running THEN ts END AS ts, device, temperature FROM tank;

INSERT INTO uplink SELECT window_start, count(*) AS n
FROM TUMBLE(timed, DESCRIPTOR(ts), INTERVAL '10' SECOND) GROUP BY window_start, window_end;

INSERT INTO lamp SELECT device, window_start, window_end, count(*) AS n
FROM SESSION(timed PARTITION BY device, DESCRIPTOR(ts), INTERVAL '5' SECOND) GROUP BY window_start, window_end, device;

INSERT INTO lamp SELECT device, window_end, count(*) AS n
FROM COUNT_WINDOW(timed PARTITION BY device, 2) GROUP BY window_start, window_end, device;
