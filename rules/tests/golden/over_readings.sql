INSERT INTO uplink SELECT rate(temperature) OVER w AS r, ewma(temperature, 0.5) OVER w AS e, deadband(temperature, 2) OVER w AS d, hysteresis(temperature, 5, 15) OVER w AS h,
  changed(temperature) OVER w AS c, changed(temperature, 3) OVER w AS c3, since(temperature > 10) OVER w AS s FROM tank WINDOW w AS (PARTITION BY device);
