-- Pass through.
INSERT INTO uplink SELECT auction, bidder, price, ts FROM bid;
