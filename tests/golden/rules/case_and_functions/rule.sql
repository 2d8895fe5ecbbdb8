INSERT INTO lamp
SELECT upper(device) AS device,
  CASE WHEN temperature >= 90 THEN 'red' WHEN temperature >= 80 THEN 'amber' WHEN temperature IS NULL THEN 'broken' ELSE 'green' END AS colour,
  coalesce(temperature, -1) AS shown, round(temperature / 3, 2) AS third, abs(count) AS size, note LIKE 'pump%' AS pump
FROM tank;
