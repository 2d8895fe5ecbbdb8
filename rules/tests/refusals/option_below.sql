INSERT INTO lamp SELECT device FROM tank; --! mode = "off"
INSERT INTO uplink SELECT device FROM tank
--! lateness = "5s"
;
-- ! mode = "shadow"
