-- Empty cells are null; text in quotes may hold commas and line breaks.
INSERT INTO lamp SELECT ts, device, temperature, count, ok, note FROM tank;
