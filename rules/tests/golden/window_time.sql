-- What a minute comes to belongs to the hour that the minute is in, as in Flink, whose `window_time` is the last millisecond of a window.
CREATE VIEW minutes AS SELECT window_time AS ts, device, count(*) AS n
FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '1' MINUTE) GROUP BY window_start, window_end, device;

INSERT INTO uplink SELECT window_start, window_end, window_time, sum(n) AS n
FROM TUMBLE(minutes, DESCRIPTOR(ts), INTERVAL '1' HOUR) GROUP BY window_start, window_end;

INSERT INTO lamp SELECT window_time, count(*) AS n
FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '1' HOUR) GROUP BY window_time;
