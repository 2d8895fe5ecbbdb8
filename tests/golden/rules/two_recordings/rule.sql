-- Rows of two streams come in the order of their times; at the same time the recording that was named first goes first.
INSERT INTO lamp SELECT ts, 'press' AS source, device FROM press;
INSERT INTO lamp SELECT ts, 'tank' AS source, device FROM tank;
