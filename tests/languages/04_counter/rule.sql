-- What each machine has made, though its counter begins again from 0 now and then.
CREATE VIEW machines AS
SELECT ts, device, CAST(increase(count) OVER (PARTITION BY device) AS BIGINT) AS made FROM tank;

CREATE VIEW busy AS SELECT ts, device, made FROM machines WHERE made > 0;

INSERT INTO produced SELECT ts, device, made, sum(made) OVER (PARTITION BY device) AS total FROM busy;
