INSERT INTO lamp SELECT avrage(temperature) AS x FROM tank
