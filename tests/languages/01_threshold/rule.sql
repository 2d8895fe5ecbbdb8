INSERT INTO alarms SELECT ts, device, temperature AS value FROM tank WHERE temperature > 80;
