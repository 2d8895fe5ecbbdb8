--! state_ttl = "10s"
INSERT INTO uplink
SELECT device, count(*) AS n, sum(count) AS s
FROM COUNT_WINDOW(tank PARTITION BY device, 3)
GROUP BY window_start, window_end, device;
INSERT INTO lamp
SELECT device, count
FROM STATE_WINDOW(tank PARTITION BY device, running, NOT running);
