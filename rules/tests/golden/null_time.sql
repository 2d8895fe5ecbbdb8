-- A row without `ts` has no place in a stream: it costs itself.
INSERT INTO hot SELECT CASE WHEN running THEN ts END AS ts, device, temperature AS mean FROM tank;
