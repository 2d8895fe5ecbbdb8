SELECT window_start, category, avg(final) AS final FROM (
  SELECT date_bin(INTERVAL '1 minute', b.ts, TIMESTAMP '1970-01-01T00:00:00Z') AS window_start, a.id, a.category, max(b.price) AS final
  FROM auction AS a JOIN bid AS b ON a.id = b.auction AND b.ts BETWEEN a.ts AND a.ts + INTERVAL '20 seconds'
  WHERE b.ts <= a.expires
  GROUP BY 1, 2, 3
) GROUP BY 1, 2
