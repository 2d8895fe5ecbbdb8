INSERT INTO lamp SELECT device, temperature AS device FROM tank
