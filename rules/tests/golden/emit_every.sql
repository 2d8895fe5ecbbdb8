--! emit_every = "5s"
--! lateness = "1s"
INSERT INTO uplink SELECT window_end, count(*) AS n, sum(count) AS s FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '12' SECOND) GROUP BY window_start, window_end;
