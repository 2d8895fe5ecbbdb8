INSERT INTO hot SELECT ts, device, temperature AS maen FROM tank
