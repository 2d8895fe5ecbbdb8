INSERT INTO uplink SELECT count ^ 2 AS x, power(count, 2) AS y, count & 3 AS z FROM tank;
