--! description = "Ten-second statistics of every tank, for other rules and for the cloud"
--! lateness = "1s"

-- A derived stream is a table that a rule writes and other rules read; `ts` is the time of its rows. Its columns are declared in
-- tidegate.toml under [streams.tank_stats.fields].
INSERT INTO tank_stats
SELECT
  window_end AS ts,
  site,
  device,
  avg(temperature) AS mean_temperature,
  max(temperature) AS max_temperature,
  avg(level) AS mean_level,
  count(*) AS samples
FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND)
WHERE temperature BETWEEN -40 AND 200
GROUP BY window_start, window_end, site, device;

-- Three small rows every ten seconds instead of 240 raw ones: the cloud gets the statistics, not the noise.
INSERT INTO uplink
SELECT ts, site, device, mean_temperature, max_temperature, mean_level, samples
FROM tank_stats;
