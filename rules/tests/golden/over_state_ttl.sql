--! state_ttl = "10s"
INSERT INTO uplink SELECT device, row_number() OVER (PARTITION BY device) AS n FROM tank;
