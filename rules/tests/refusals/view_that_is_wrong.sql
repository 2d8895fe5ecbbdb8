-- What reads a view that is wrong has no fault of its own.
CREATE VIEW v AS SELECT devce, temperature FROM tank;
INSERT INTO uplink SELECT device FROM v WHERE temperature > 80;
INSERT INTO uplink SELECT tank.device FROM tank JOIN v ON tank.device = v.device;
INSERT INTO uplink SELECT devise FROM tank;
