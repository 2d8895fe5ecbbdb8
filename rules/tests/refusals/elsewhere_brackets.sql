INSERT INTO uplink SELECT device AS [the device] FROM tank;
