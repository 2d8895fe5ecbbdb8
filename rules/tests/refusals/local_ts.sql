CREATE VIEW l AS SELECT to_local_time(ts AT TIME ZONE 'Europe/Berlin') AS ts, device, temperature FROM tank;
INSERT INTO uplink SELECT ts, device FROM l;
INSERT INTO hot SELECT ts, device, temperature AS mean FROM l;
