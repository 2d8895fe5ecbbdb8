"""A box that is right is never accused, and one that lacks a clause is found out."""

import unittest

from model import storm

CLAUSES = ("range", "slew", "minimum times", "deadband", "rate", "wanted", "interlock")


class Storms(unittest.TestCase):
    """Each seed is another story."""

    def test_what_is_right_is_never_accused(self):
        judged = {}
        for seed in range(20):
            model = storm(seed)
            verdict = model.story.verdict(model.now, hop=0.15)
            self.assertEqual([str(fault) for fault in verdict.faults], [], f"seed {seed}")
            for clause, count in verdict.judged.items():
                judged[clause] = judged.get(clause, 0) + count
        for clause in (*CLAUSES, "reached"):
            self.assertGreater(judged.get(clause, 0), 20, judged)

    def test_a_clause_that_is_not_kept_is_found(self):
        for clause in (*CLAUSES, "retries"):
            found, seed = set(), 0
            while clause not in found and seed < 15:
                model = storm(seed, without=(clause,))
                found |= {fault.clause for fault in model.story.verdict(model.now, hop=0.15).faults}
                seed += 1
            self.assertIn(clause, found)


if __name__ == "__main__":
    unittest.main()
