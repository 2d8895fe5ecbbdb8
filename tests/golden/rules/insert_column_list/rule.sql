-- The list names the columns of the SELECT in their order. A derived stream's columns that are not named are null.
INSERT INTO lamp (who, degrees) SELECT device, temperature FROM tank;
INSERT INTO hot (device, ts) SELECT device, ts FROM tank;
