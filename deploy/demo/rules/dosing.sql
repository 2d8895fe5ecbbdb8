--! description = "Dose disinfectant by the inflow of the tanks, as long as the barrel is not empty"

-- How much flows into the tanks together, in litres a minute, once a second: a flood of rows would not make
-- the pump more exact.
CREATE VIEW inflow AS
SELECT window_end AS ts, sum(litres) AS litres
FROM (
  SELECT window_start, window_end, device, avg(inflow) AS litres
  FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '1' SECOND)
  GROUP BY window_start, window_end, device
)
GROUP BY window_start, window_end;

-- Each of these rows meets what the scale and the drive have said last. The names of a DBC file have capital
-- letters, which SQL keeps where they are quoted.
-- The drive stops by itself when it hears nothing for a second. The output sends the newest row ten times a
-- second, and no longer than two seconds: a rule that has stopped stops the pump.
INSERT INTO dosing_pump
SELECT
  CASE WHEN s.net > 0.5 THEN least(3000, 1.5 * i.litres) ELSE 0 END AS "SetSpeed",
  s.net > 0.5 AND d."State" <> 'fault' AS "Enable"
FROM inflow AS i
JOIN scale FOR SYSTEM_TIME AS OF CURRENT_TIMESTAMP AS s ON TRUE
JOIN drive FOR SYSTEM_TIME AS OF CURRENT_TIMESTAMP AS d ON TRUE;

-- `became` gives the first row of each time that the barrel is empty.
INSERT INTO uplink
SELECT ts, 'dosing' AS device, 'barrel-empty' AS alarm, net AS value
FROM scale
QUALIFY became(net < 0.5) OVER ();
