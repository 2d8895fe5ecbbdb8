INSERT INTO uplink
SELECT device, count(*) AS n, count(count) AS c, sum(count) AS s, avg(count) AS a, min(count) AS lo, max(count) AS hi, median(count) AS m, bit_and(count) AS ba,
  bit_or(count) AS bo, bit_xor(count) AS bx, bool_and(running) AS every_one, bool_or(running) AS any_one
FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '1' MINUTE) GROUP BY window_start, window_end, device;

INSERT INTO lamp
SELECT device, array_agg(count) AS list, array_agg(DISTINCT count ORDER BY count) AS kinds, string_agg(CAST(count AS TEXT), '/' ORDER BY ts DESC, count) AS text,
  first_value(count ORDER BY ts, count DESC NULLS LAST) AS f, last_value(count ORDER BY ts, count) AS l, sum(count) FILTER (WHERE running) AS sr,
  count(DISTINCT running) AS dr, min(device) AS lod, approx_distinct(count) AS ad, first_value(count) IGNORE NULLS AS fi
FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '1' MINUTE) GROUP BY window_start, window_end, device;
