-- Who sells in category 10 in three states. (The original keeps all people and auctions for ever; here they meet within an hour.)
--! lateness = "2s"
INSERT INTO uplink
SELECT p.name, p.city, p.state, a.id
FROM auction AS a
INNER JOIN person AS p ON a.seller = p.id AND p.ts BETWEEN a.ts - INTERVAL '1' HOUR AND a.ts + INTERVAL '1' HOUR
WHERE a.category = 10 AND (p.state = 'OR' OR p.state = 'ID' OR p.state = 'CA');
