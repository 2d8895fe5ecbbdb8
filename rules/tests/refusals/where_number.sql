INSERT INTO lamp SELECT device FROM tank WHERE temperature
