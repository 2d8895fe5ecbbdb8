INSERT INTO uplink SELECT ts, device FROM tank WHERE temperature > (SELECT high FROM limits WHERE device = CAST(date_part('hour', now()) AS VARCHAR))
