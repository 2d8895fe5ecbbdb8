INSERT INTO lamp SELECT device FROM tank WHERE running > 5.5 + device
