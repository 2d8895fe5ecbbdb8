INSERT INTO uplink SELECT device, lag(now()) OVER (PARTITION BY device) AS before FROM tank
