INSERT INTO uplink SELECT v.device FROM valve v LEFT JOIN UNNEST(v.readings) AS u(x) ON true
