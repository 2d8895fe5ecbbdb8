-- For one row: rules by their names, and the statements of a rule as they stand in its file.
INSERT INTO lamp SELECT 'b first' AS said, count FROM tank;
INSERT INTO pump SELECT 'b second' AS said, count FROM tank WHERE count <> 2;
INSERT INTO lamp SELECT 'b third' AS said, count FROM tank;
