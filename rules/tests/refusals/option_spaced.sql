-- ! mode = "off"
/*! mode = "off" */
/* a comment of several lines */
--! mode = "off"
INSERT INTO lamp SELECT device FROM tank;
