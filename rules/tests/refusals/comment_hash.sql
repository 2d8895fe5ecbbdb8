# hot tanks
INSERT INTO uplink SELECT device -- fine
#the name
FROM tank;
