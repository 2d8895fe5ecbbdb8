INSERT INTO uplink SELECT to_local_time(ts) AS a, to_local_time(ts AT TIME ZONE 'Europe/Berlin') AS b FROM tank;
INSERT INTO uplink SELECT to_local_time(to_timestamp(device)) AS a FROM tank;
