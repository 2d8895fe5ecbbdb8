INSERT INTO lamp SELECT 'a' AS said, count FROM tank WHERE count > 1;
