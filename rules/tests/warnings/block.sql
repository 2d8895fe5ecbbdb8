-- A rule that may stop control.
--! priority = 7
--! when_full = "block"
INSERT INTO uplink SELECT ts FROM tank;
