-- A row whose sum does not fit costs itself, not the next one.
INSERT INTO lamp SELECT count + 1 AS next FROM tank;
