--! idle_after = "5s"
-- the wall clock, as it was when a row passed
INSERT INTO lamp SELECT ts, now() AS seen, date_part('hour', now()) AS hour FROM tank WHERE ts > now() - INTERVAL '1' MINUTE;
INSERT INTO cooling_pump
SELECT device, TRUE AS run, count(*) AS n, CURRENT_TIMESTAMP AS closed
FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND)
GROUP BY window_start, window_end, device
HAVING date_part('day', now()) = 2;
INSERT INTO uplink SELECT current_date AS day, current_time AS clock FROM valve;
