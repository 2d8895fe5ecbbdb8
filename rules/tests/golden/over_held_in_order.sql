--! lateness = "3s"
INSERT INTO uplink SELECT ts, device, held(running, INTERVAL '2' SECOND) OVER (PARTITION BY device ORDER BY ts) AS ran FROM tank;
