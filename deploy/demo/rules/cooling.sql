--! description = "Cool a tank when its 10 s mean passes 80 degrees, until the mean is below 70"
--! lateness = "1s"

-- TRY THIS: change 80 to 70, or 70 to 60, and save while the demo runs. The open windows are kept.
--
-- A mean over ten seconds does not start a pump because of one bad value. The gap between 80 and 70 is the hysteresis: between
-- them neither statement writes a row, and the pump goes on doing what it was last told.
-- A value outside -40..200 degrees is a broken wire and not a temperature; a null is ignored by avg.

-- start
INSERT INTO cooling_pump
SELECT site, device, TRUE AS run
FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND)
WHERE temperature BETWEEN -40 AND 200
GROUP BY window_start, window_end, site, device
HAVING avg(temperature) > 80;

-- stop
INSERT INTO cooling_pump
SELECT site, device, FALSE AS run
FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND)
WHERE temperature BETWEEN -40 AND 200
GROUP BY window_start, window_end, site, device
HAVING avg(temperature) < 70;
