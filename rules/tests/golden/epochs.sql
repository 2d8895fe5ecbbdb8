-- A number of seconds since 1970 is a moment, and may be the time of a row.
INSERT INTO uplink SELECT to_timestamp(count) AS ts, count FROM tank
WHERE to_timestamp(count) = '1970-01-01T00:00:07Z' AND to_timestamp_millis(count * 1000) = to_timestamp(7)
  AND from_unixtime(count) = '1970-01-01T00:00:07Z' AND to_timestamp(temperature) > '1970-01-01T00:01:20Z';
