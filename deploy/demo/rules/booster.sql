--! description = "Hold the pressure in the main between 4 and 5.5 bar, tell the cloud when the pump trips"

-- Each statement compares what the pump should do with what its controller says that it was told: `run` is
-- the coil as it was read. So a command is written once and not with each of the four rows a second, and it
-- is written again if it did not arrive, or if the controller has lost it with its power.
-- Between 4 and 5.5 bar neither writes, and the pump goes on doing what it was last told (hysteresis).
-- A pressure or a coil that could not be read is null, and a comparison with null is never true: no write.

-- start; the speed is written before the coil
INSERT INTO booster_pump
SELECT TRUE AS run, 80.0 AS speed
FROM booster
WHERE pressure < 4.0 AND NOT run;

-- stop; the setpoint stays
INSERT INTO booster_pump
SELECT FALSE AS run
FROM booster
WHERE pressure > 5.5 AND run;

-- The motor protection trips now and then and resets itself. `became` gives the first row of each trip.
INSERT INTO uplink
SELECT ts, 'booster' AS device, 'pump-tripped' AS alarm, pressure AS value
FROM booster
QUALIFY became(fault) OVER ();
