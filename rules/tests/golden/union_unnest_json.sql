INSERT INTO uplink SELECT ts, device, position AS n FROM valve WHERE open UNION ALL SELECT ts, upper(device), count FROM tank UNION ALL SELECT ts, 'both', position FROM valve;
INSERT INTO lamp SELECT position AS p, unnest(readings) AS r, unnest(make_array(position, NULL)) AS q FROM valve;
INSERT INTO cooling_pump SELECT device, device->'a'->>0 AS first, device->>'b' AS b, device->'b' AS j, json_get_array(device, 'a') AS list FROM tank;
