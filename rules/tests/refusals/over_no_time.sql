INSERT INTO uplink SELECT rate(count) OVER (PARTITION BY device) AS r FROM (SELECT device, count FROM tank) AS x
