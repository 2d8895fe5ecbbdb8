--! description = "Show each tank's inflow in cubic metres an hour on the display beside it"

-- The sensor reports litres a minute; 1 l/min = 0.06 m3/h.
INSERT INTO flow_display
SELECT site, device, round(inflow * 0.06, 2) AS m3_per_h
FROM tank
WHERE inflow IS NOT NULL;
