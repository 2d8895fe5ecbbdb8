INSERT INTO uplink SELECT ts,
  became(running) OVER w AS became, since(running) OVER w AS since, count_within(running, INTERVAL '2' SECOND) OVER w AS within, changed(count) OVER w AS changed,
  changed(device) OVER () AS device_changed, hysteresis(temperature, -1, 0) OVER w AS h, deadband(temperature, 0) OVER w AS d, rate(count) OVER w AS rate,
  ewma(temperature, 1) OVER w AS e1, round(ewma(CASE WHEN abs(temperature) < 100 THEN temperature END, INTERVAL '1' SECOND) OVER w, 3) AS et
FROM tank WINDOW w AS (PARTITION BY device);
