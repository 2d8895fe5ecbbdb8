INSERT INTO uplink SELECT device FROM tank WHERE device = ‘press’;
