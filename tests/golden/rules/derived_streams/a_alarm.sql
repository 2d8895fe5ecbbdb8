-- Third: an alarm. Rules run from the input to the output, whatever they are called.
INSERT INTO lamp SELECT ts, device, mean FROM hottest WHERE mean > 80;
