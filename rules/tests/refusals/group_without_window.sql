INSERT INTO uplink SELECT device, avg(temperature) AS mean FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND) GROUP BY device
