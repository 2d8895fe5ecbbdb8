INSERT INTO uplink SELECT ts FROM tank
WHERE temperature = NULL
   OR NULL <> device;
