INSERT INTO hot SELECT ts, device, device AS mean FROM tank
