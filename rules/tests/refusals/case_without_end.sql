INSERT INTO uplink SELECT CASE WHEN temperature > 80 THEN 'hot' ELSE 'ok' AS s, temperature FROM tank;
