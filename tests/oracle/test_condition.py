"""Conditions are read as SQL has them."""

import unittest

from condition import Condition


class Conditions(unittest.TestCase):
    """The truth tables are those of SQL:2016, 8.20."""

    def says(self, text, expected, **rows):
        self.assertIs(Condition(text).holds(rows), expected, text)

    def test_comparisons_and_what_is_unknown(self):
        tank = {"level": 8.2, "open": False, "name": "a'b", "gone": None}
        for text, expected in {
            "tank.level > 8": True, "tank.level > 8.2": False, "8.2 <= tank.level": True,
            "tank.gone > 8": None, "other.level > 8": None, "tank.gone IS NULL": True,
            "tank.level IS NOT NULL": True, "tank.open": False, "NOT tank.open": True, "NOT tank.gone": None,
            "tank.name = 'a''b'": True, "tank.name <> 'x'": True, "tank.level BETWEEN 8 AND 9": True,
            "tank.level NOT BETWEEN 8 AND 9": False, "tank.level * 2 = 2 * (4.1 + 4.1)": True,
            "tank.level > -1": True, "tank.level < 8 OR tank.level > 9 AND tank.open": False,
        }.items():
            self.says(text, expected, tank=tank)

    def test_and_or_are_three_valued(self):
        values = {True: "TRUE", False: "FALSE", None: "NULL"}
        for a, left in values.items():
            for b, right in values.items():
                low = False if a is False or b is False else None if None in (a, b) else True
                high = True if a is True or b is True else None if None in (a, b) else False
                self.says(f"{left} AND {right}", low)
                self.says(f"{left} OR {right}", high)

    def test_streams_are_known(self):
        self.assertEqual(Condition("tank.level > 10 AND NOT press.guard_open").streams, {"tank", "press"})

    def test_what_cannot_be_read_is_said(self):
        for text in (
            "tank.level >", "tank.level > 8 ;", "(tank.level > 8", "level LIKE 'x'", "tank.level IS 5",
        ):
            with self.assertRaises((ValueError, IndexError), msg=text):
                Condition(text)


if __name__ == "__main__":
    unittest.main()
