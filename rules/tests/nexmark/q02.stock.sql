SELECT auction, price FROM bid WHERE auction % 13 = 0
