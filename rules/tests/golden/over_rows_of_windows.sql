--! lateness = "2s"
INSERT INTO uplink
SELECT ts, device, temperature, row_number() OVER (PARTITION BY window_end, device ORDER BY temperature DESC, ts) AS place
FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND)
QUALIFY place <= 2;
