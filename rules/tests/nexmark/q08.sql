-- Who came in the same 10 s in which they sold something for the first time.
--! lateness = "2s"
CREATE VIEW people AS
SELECT id, name, window_start, window_end
FROM TUMBLE(person, DESCRIPTOR(ts), INTERVAL '10' SECOND)
GROUP BY id, name, window_start, window_end;

CREATE VIEW sellers AS
SELECT seller, window_start, window_end
FROM TUMBLE(auction, DESCRIPTOR(ts), INTERVAL '10' SECOND)
GROUP BY seller, window_start, window_end;

INSERT INTO uplink
SELECT p.id, p.name, p.window_start
FROM people AS p
JOIN sellers AS s ON p.id = s.seller AND p.window_start = s.window_start AND p.window_end = s.window_end;
