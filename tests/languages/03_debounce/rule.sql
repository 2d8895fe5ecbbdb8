-- Says when a press has been pressing for five seconds.
CREATE VIEW presses AS
SELECT ts, device, force, held(force > 10, INTERVAL '5' SECOND) OVER (PARTITION BY device) AS held FROM press;

INSERT INTO alarms SELECT ts, device, force AS value FROM presses QUALIFY became(held) OVER (PARTITION BY device);
