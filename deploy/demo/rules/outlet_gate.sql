--! description = "Open the outlet gate above 80 % level and shut it below 30 %"

-- Two thresholds without a window: a row that passes one moves the gate as soon as it arrives. Between the thresholds the gate
-- stays where it is (hysteresis). Repeating a command that already holds does no harm.

-- open
INSERT INTO outlet_gate
SELECT site, device, TRUE AS open
FROM tank
WHERE level > 80;

-- shut
INSERT INTO outlet_gate
SELECT site, device, FALSE AS open
FROM tank
WHERE level < 30;
