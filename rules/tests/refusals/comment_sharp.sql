# hot tanks
INSERT INTO lamp SELECT device FROM tank;
