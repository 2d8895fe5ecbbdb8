-- A view is a step: two statements read it, one of them by windows. A row that the view drops moves time on all the same.
CREATE VIEW celsius AS SELECT ts, device, (temperature - 32) * 5 / 9 AS t FROM tank WHERE temperature >= 32;
INSERT INTO lamp SELECT device, t FROM celsius WHERE t > 50;
INSERT INTO uplink SELECT w.window_end AS ts, max(w.t) AS highest
FROM TUMBLE(celsius, DESCRIPTOR(ts), INTERVAL '10' SECOND) AS w GROUP BY w.window_start, w.window_end;
