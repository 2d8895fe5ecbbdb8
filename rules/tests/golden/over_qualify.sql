INSERT INTO uplink SELECT ts, device, temperature, count(*) OVER (PARTITION BY device) AS n FROM tank
WHERE temperature IS NOT NULL
QUALIFY temperature > lag(temperature) OVER (PARTITION BY device) OR row_number() OVER (PARTITION BY device) = 3;

INSERT INTO lamp SELECT device, n FROM (SELECT device, row_number() OVER (PARTITION BY device, temperature) AS n FROM tank) AS numbered QUALIFY n = 1 AND row_number() OVER () > 1;
