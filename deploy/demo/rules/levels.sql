--! description = "Tell the cloud when a tank begins to fill or to empty"
--! lateness = "1s"

-- level_trend is what the plugin beside this file writes. Below 0.3 %/s it may be noise: then the tank goes on as before.
INSERT INTO uplink
SELECT ts, device, CASE WHEN rate > 0 THEN 'fills' ELSE 'empties' END AS tank, round(value, 1) AS level
FROM level_trend
WHERE abs(rate) > 0.3
QUALIFY changed(rate > 0) OVER (PARTITION BY device);
