INSERT INTO lamp
SELECT device FORM tank
