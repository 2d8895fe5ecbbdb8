INSERT INTO uplink SELECT position, changed(readings) OVER w AS list, changed(named_struct('o', open, 'd', device)) OVER w AS struct,
  changed(ts) OVER w AS time, changed(open) OVER w AS flag, changed(device) OVER w AS text FROM valve WINDOW w AS ();
