-- A row leads to as many as four others, whose order must not depend on where batches were cut.
INSERT INTO alarms SELECT ts, device, temperature AS value FROM tank WHERE temperature > 80;

INSERT INTO states SELECT ts, device, running AS active FROM tank QUALIFY changed(running) OVER (PARTITION BY device);

INSERT INTO pump SELECT device, running AS run FROM tank WHERE running IS NOT NULL AND count % 4 = 0;

INSERT INTO seen SELECT ts, device, count(*) OVER (PARTITION BY device) AS n FROM tank;
