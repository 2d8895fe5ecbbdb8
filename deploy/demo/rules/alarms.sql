--! description = "Tell the cloud when a tank is too hot or its temperature sensor fails"
--! lateness = "1s"

-- Too hot: every value of five seconds, not a single one, is above 85 degrees.
INSERT INTO uplink
SELECT window_end AS ts, site, device, 'over-temperature' AS alarm, min(temperature) AS value
FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '5' SECOND)
GROUP BY window_start, window_end, site, device
HAVING min(temperature) > 85;

-- Sensor fault: at least one row of five seconds without a temperature, or with one that no water can have.
INSERT INTO uplink
SELECT window_end AS ts, site, device, 'temperature-sensor' AS alarm, CAST(count(*) AS DOUBLE) AS value
FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '5' SECOND)
WHERE temperature IS NULL OR temperature NOT BETWEEN -40 AND 200
GROUP BY window_start, window_end, site, device;
