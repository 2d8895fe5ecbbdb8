-- Whatever of it is forgotten shows in the next row.
INSERT INTO seen
SELECT ts, device, count(*) OVER w AS n, max(temperature) OVER w AS highest, lag(ts) OVER w AS before
FROM tank
WINDOW w AS (PARTITION BY device);
