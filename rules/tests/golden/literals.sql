-- A text that is written as a literal is read as what it is compared with.
INSERT INTO uplink SELECT count FROM tank
WHERE count = '7' AND ts > '1970-01-01T00:00:02Z' AND running = 'true' AND temperature BETWEEN '80' AND 90.5 AND device IN ('7', '8');

-- A text that is no number is null, and costs no row, where the rule says so.
INSERT INTO lamp SELECT device FROM tank WHERE TRY_CAST(device AS DOUBLE) = 7 OR temperature > 90;
