--! state_ttl = "10s"
INSERT INTO uplink SELECT device, temperature, count(*) AS n, min(count) AS lo, max(count) AS hi FROM tank GROUP BY device, temperature;
