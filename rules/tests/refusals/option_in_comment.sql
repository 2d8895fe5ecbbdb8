-- mode = "shadow"
---! mode = "off"
--mode = shadow
-- lateness = how late
INSERT INTO lamp SELECT device FROM tank; -- emit = "row"
