-- Only windows whose mean is above 80 write; HAVING may use aggregates that SELECT does not.
INSERT INTO pump
SELECT device, TRUE AS run
FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND)
GROUP BY window_start, window_end, device
HAVING avg(temperature) > 80 AND count(*) >= 2;
