--! state_ttl = "1h"
INSERT INTO uplink SELECT device, max(ts) AS ts FROM tank GROUP BY device
HAVING now() - max(ts) > INTERVAL '10' SECOND;
