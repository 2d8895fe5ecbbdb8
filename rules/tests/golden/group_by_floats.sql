-- zeros are one key, whatever their sign, NaN is one key, and null is one, but equals nothing
INSERT INTO uplink SELECT temperature + 0 AS t, count(*) AS n FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '1' MINUTE) GROUP BY window_start, window_end, temperature;
INSERT INTO lamp SELECT temperature + 0 AS t, row_number() OVER (PARTITION BY temperature) AS n FROM tank;
INSERT INTO cooling_pump SELECT temperature + 0 AS t, device, count(*) AS n FROM COUNT_WINDOW(tank PARTITION BY temperature, 2) GROUP BY window_start, window_end, temperature, device;
INSERT INTO hot SELECT a.ts, a.device, b.temperature AS mean FROM tank a JOIN tank b ON a.temperature = b.temperature AND b.ts = a.ts AND a.device = 'x' AND b.device = 'y';
