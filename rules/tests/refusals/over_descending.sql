INSERT INTO uplink SELECT * FROM (SELECT ts, device, row_number() OVER (PARTITION BY device ORDER BY ts DESC) AS n FROM tank) AS x WHERE n = 1
