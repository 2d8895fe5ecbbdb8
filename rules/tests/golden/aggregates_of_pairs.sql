INSERT INTO uplink
SELECT device, corr(temperature, count) AS r, covar_samp(temperature, count) AS c, covar_pop(temperature, count) AS cp, regr_slope(temperature, count) AS slope,
  regr_intercept(temperature, count) AS intercept, regr_count(temperature, count) AS n, regr_r2(temperature, count) AS r2, regr_avgx(temperature, count) AS ax,
  regr_avgy(temperature, count) AS ay, regr_sxx(temperature, count) AS sxx, regr_syy(temperature, count) AS syy, regr_sxy(temperature, count) AS sxy
FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '1' MINUTE) GROUP BY window_start, window_end, device;
