INSERT INTO uplink SELECT device, avg(temperature) AS mean FROM tank GROUP BY device
