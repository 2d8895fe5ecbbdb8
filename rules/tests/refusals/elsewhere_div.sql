INSERT INTO uplink SELECT device FROM tank WHERE temperature DIV 5 > 2;
