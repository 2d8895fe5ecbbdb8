INSERT INTO uplink SELECT ts, device, held(running, INTERVAL '5' SECOND) OVER (PARTITION BY device) AS h, held(running, INTERVAL '1' MILLISECOND) OVER (PARTITION BY device) AS soon FROM tank;
