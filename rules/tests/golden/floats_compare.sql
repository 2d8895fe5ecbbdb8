-- NaN is one number, greater than all others, and both zeros are one: PostgreSQL, 8.1.3. What `0.0 / 0.0` gives has a sign on some machines.
INSERT INTO uplink SELECT
  temperature < 5 AS less,
  temperature > 5 AS more,
  temperature = temperature AS same,
  temperature = 0 AS zero,
  temperature IN (0, 7, 8, 9, 10) AS listed,
  temperature BETWEEN 5 AND 8 AS between_them,
  CASE temperature WHEN 0 THEN 'zero' WHEN CAST('NaN' AS DOUBLE) THEN 'nan' END AS named,
  nullif(temperature, 0) AS not_zero,
  greatest(temperature, 5) AS greater,
  least(temperature, 5) AS lesser
FROM tank;

-- A division of floats has a value.
INSERT INTO lamp SELECT count, count * 1.0 / 0.0 < 5 AS less FROM tank WHERE count * 1.0 / 0.0 > 5;
