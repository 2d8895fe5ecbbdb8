INSERT INTO hot SELECT device, temperature AS mean FROM tank
