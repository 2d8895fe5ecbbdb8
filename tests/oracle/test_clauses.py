"""For each clause a record that keeps it, and one that breaks it and nothing else."""

import unittest

from story import CONFIG, RULE, Story

TANK = 'interlock = {{ when = "tank.level > 10", max_age = "{age}"{more} }}'
PAIR = """
[outputs.forwards]
connection = "plc"
fields = {{ run = {{ coil = 1 }} }}
contract = {{ expiry = "{expiry}", failsafe = {{ run = false }}, {terms} }}
[outputs.reverse]
connection = "plc"
fields = {{ run = {{ coil = 2 }} }}
contract = {{ expiry = "{expiry}", failsafe = {{ run = false }} }}
"""


class Clauses(unittest.TestCase):
    """`kept` and `broken` make a record from a fresh story."""

    def check(self, story, until, *clauses):
        found = story.verdict(until)
        self.assertEqual(sorted({fault.clause for fault in found.faults}), sorted(clauses), found.faults)
        return found

    def test_a_plain_claim_is_written_and_nothing_is_wrong(self):
        story = Story().row(1, run=True, speed=50).run(1.05, True).speed(1.05, 50)
        found = self.check(story, 5)
        self.assertGreater(found.judged["reached"], 1)
        self.assertEqual(found.judged["wanted"], 2)

    def test_range(self):
        limits = "range = { speed = [10, 60] }"
        self.check(Story(limits).wants(1, 80).speed(1.1, 60), 5)
        self.check(Story(limits).wants(1, 80).speed(1.1, 80), 5, "range", "wanted", "reached")
        self.check(Story(limits + '\nout_of_range = "refuse"').wants(1, 80), 5)
        self.check(Story(limits + '\nout_of_range = "refuse"').wants(1, 80).speed(1.1, 60), 5, "wanted")

    def test_slew_of_one_step_and_of_many(self):
        ramp = 'slew = { speed = "10/s" }\nslew_every = "500ms"'
        good = Story(ramp).wants(1, 20)
        for index, value in enumerate((5, 10, 15, 20)):
            good.speed(1.1 + index / 2, value)
        self.assertGreater(self.check(good, 9).judged["slew"], 3)
        self.check(Story(ramp).wants(1, 20).speed(1.1, 20), 5, "slew")
        fast = Story(ramp).wants(1, 20)
        for index, value in enumerate((5, 10, 15, 20)):
            fast.speed(1.1 + index / 5, value)
        self.check(fast, 9, "slew")
        short = Story(ramp).wants(1, 20).speed(1.1, 5).speed(1.6, 10).speed(2.1, 15).speed(2.6, 19)
        self.check(short, 9, "reached")

    def test_slew_goes_on_from_what_is_known_after_an_outage(self):
        ramp = 'slew = { speed = "10/s" }\nslew_every = "500ms"'
        def story():
            made = Story(ramp, expiry="3s").wants(1, 5).speed(1.1, 5).line(1.3, False).line(9, True)
            return made.row(10, speed=5)
        self.check(story().speed(10.1, 5), 12)
        self.check(story().speed(10.1, 0).speed(10.6, 5), 12)
        self.check(Story(ramp).line(1, False).line(2, True).wants(3, 50).speed(3.1, 50), 4, "slew")

    def test_minimum_times(self):
        least = 'min_on = "2s"\nmin_off = "3s"'
        good = Story(least).row(1, run=True).run(1.1, True).row(1.5, run=False).run(3.1, False)
        good.row(3.5, run=True).run(6.1, True)
        self.assertEqual(self.check(good, 9).judged["minimum times"], 2)
        early = Story(least).row(1, run=True).run(1.1, True).row(1.5, run=False).run(1.7, False)
        self.check(early, 4, "minimum times")
        early = Story(least).row(1, run=True).run(1.1, True).row(4, run=False).run(4.1, False)
        self.check(early.row(4.5, run=True).run(4.6, True), 6, "minimum times")
        never = Story(least).row(1, run=True).run(1.1, True).row(4, run=False).run(4.1, False)
        self.check(never.row(4.5, run=True), 20, "reached")

    def test_minimum_times_yield_to_a_trip_and_survive_a_restart(self):
        terms = 'min_on = "2s"\n' + TANK.format(age="never", more="")
        story = Story(terms).row(0.5, stream="tank", level=20).row(1, run=True).run(1.1, True)
        self.check(story.row(1.5, stream="tank", level=5).run(1.6, False), 4)
        story = Story('min_off = "5s"').row(1, run=True).run(1.1, True).row(2, run=False).run(2.1, False)
        story.at(2.5, "kill").at(3, "start").row(3.5, run=True).run(3.6, True)
        self.check(story, 5, "minimum times")

    def test_what_must_stay_is_said_again_after_an_outage(self):
        story = Story('min_on = "5s"').row(1, run=True).run(1.1, True).row(2, run=False).line(2.1, False)
        self.check(story.line(2.3, True).run(2.4, True), 4)
        self.check(story.run(5.9, True), 6.2, "deadband")
        none = Story().row(1, run=True).run(1.1, True).row(2, run=False).line(2.1, False).line(2.8, True)
        self.check(none.run(2.9, True), 4, "wanted", "reached")

    def test_a_trip_is_no_claim_and_needs_none(self):
        terms = TANK.format(age="never", more="")
        self.check(Story(terms).row(1, stream="tank", level=5).speed(1.1, 0), 3)
        self.check(Story(terms).speed(1.1, 0), 3, "wanted")
        self.check(Story(terms).row(1, stream="tank", level=20).speed(1.8, 0), 3, "wanted")

    def test_deadband_and_what_is_there_already(self):
        band = "deadband = { speed = 2 }"
        self.check(Story(band).wants(1, 50).speed(1.1, 50).row(2, speed=51), 5)
        self.check(Story(band).wants(1, 50).speed(1.1, 50).row(2, speed=51).speed(2.1, 51), 5, "deadband")
        self.check(Story().wants(1, 50).speed(1.1, 50).row(2, speed=50).speed(2.1, 50), 5, "deadband")
        self.check(Story(band).wants(1, 50).speed(1.1, 50).row(2, speed=53), 5, "reached")
        far = Story(band).wants(1, 50).speed(1.1, 50).row(2, speed=51).row(3, speed=53).speed(3.1, 53)
        self.check(far, 5)
        failsafe = Story(band, expiry="1s").wants(1, 1).speed(1.1, 1).speed(2.1, 0)
        self.check(failsafe, 5)

    def test_rate_and_its_last_value(self):
        terms = 'rate = "2/s"'
        good = Story(terms).wants(1, 10, 20, 30, 40).speed(1.05, 10).speed(1.15, 20).speed(2.1, 40)
        self.assertEqual(self.check(good, 8).judged["rate"], 3)
        fast = Story(terms).wants(1, 10, 20, 30, 40)
        for index, value in enumerate((10, 20, 30, 40)):
            fast.speed(1.05 + index / 10, value)
        self.check(fast, 8, "rate")
        self.check(Story(terms).wants(1, 10, 20, 30).speed(1.05, 10).speed(1.15, 20), 8, "reached")

    def test_a_claim_ends_and_failsafe_follows(self):
        def story():
            return Story(expiry="2s").wants(1, 50).speed(1.1, 50)
        self.check(story().speed(3.1, 0), 6)
        self.check(story(), 6, "reached")
        self.check(story().speed(3.1, 0).speed(5, 50), 7, "wanted", "reached")
        held = Story(expiry="2s", failsafe='"hold"').wants(1, 50).speed(1.1, 50)
        self.check(held, 6)
        self.check(Story(expiry="2s", failsafe='"hold"').wants(1, 50).speed(1.1, 50).speed(5, 0), 6, "wanted")
        later = 'failsafe_after = "2s"'
        self.check(Story(later, expiry="1s").wants(1, 50).speed(1.1, 50).speed(4.1, 0), 8)
        self.check(Story(later, expiry="1s").wants(1, 50).speed(1.1, 50).speed(2.6, 0), 8, "wanted")

    def test_null_releases_and_a_column_that_is_not_written_stays(self):
        released = Story().row(1, run=True, speed=50).run(1.1, True).speed(1.1, 50)
        self.check(released.row(2, run=True, speed=None).speed(2.1, 0), 5)
        stays = Story(expiry="3s").row(1, run=True, speed=50).run(1.1, True).speed(1.1, 50).row(3, run=True)
        self.check(stays, 5.9)
        self.check(stays.speed(5, 0), 5.9, "wanted", "reached")

    def test_old_input_and_what_is_no_number_claim_nothing(self):
        fresh = 'max_input_age = "5s"'
        self.check(Story(fresh).wants(1, 20).speed(1.1, 20).row(2, age=7200, speed=80), 5)
        self.check(Story(fresh).wants(1, 20).speed(1.1, 20).row(2, age=7200, speed=80).speed(2.1, 80), 5,
                   "wanted", "reached")
        for bad in ("NaN", "inf"):
            self.check(Story().wants(1, 20).speed(1.1, 20).row(2, speed=bad), 5)
        other = {**RULE, "reads": ["tank"], "columns": {"speed": "speed"}}
        terms = 'max_input_age = { tank = "1s" }'
        silent = Story(terms, rule=other).row(0.5, stream="tank", level=1).wants(1, 20).speed(1.1, 20)
        self.check(silent.row(4, speed=50), 8)
        self.check(silent.speed(4.1, 50), 8, "wanted", "reached")

    def test_ranks_and_overrides(self):
        def two():
            strong = {**RULE, "name": "strong", "stream": "strong", "columns": {"speed": "speed"}, "rank": 2}
            return Story(expiry="3s").at(0, "rule", **strong).wants(1, 20).speed(1.1, 20)
        self.check(two().row(2, stream="strong", speed=60).speed(2.1, 60), 3.5)
        self.check(two().row(2, stream="strong", speed=60), 3.9, "reached")
        ends = two().row(2, stream="strong", speed=60).speed(2.1, 60).row(4.5, speed=20).speed(5.1, 20)
        self.check(ends, 7)
        self.check(two().row(2, stream="strong", speed=60).speed(2.1, 60).speed(2.8, 20), 3, "wanted")
        def overridden():
            made = two().at(2, "override", output="pump", values={"speed": 70}, lease=2)
            return made.row(2.5, stream="strong", speed=60)
        self.check(overridden().speed(2.1, 70).speed(4.1, 60).speed(5.6, 0), 8)
        self.check(overridden().speed(2.1, 70).speed(2.8, 60), 3.7, "wanted", "reached")
        self.check(overridden().speed(2.1, 70), 8, "reached")
        released = overridden().speed(2.1, 70).at(3, "release", output="pump").speed(3.1, 60)
        self.check(released, 5)

    def test_a_rule_that_is_gone_claims_nothing(self):
        def story():
            return Story().wants(1, 20).speed(1.1, 20).at(3, "gone", name="follow")
        self.check(story().speed(3.2, 0), 5)
        self.check(story(), 6, "reached")
        again = story().speed(3.2, 0).row(3.8, speed=30)
        self.check(again.speed(4, 30), 6, "wanted", "reached")

    def test_a_trip_beats_everything_within_its_time(self):
        terms = TANK.format(age="1s", more="")
        def fed(until):
            made = Story(terms)
            for tenth in range(5, until * 10, 5):
                made.row(tenth / 10, stream="tank", level=20)
            return made.wants(1, 50).speed(1.1, 50)
        self.check(fed(4), 4)
        self.check(fed(4).row(4.2, stream="tank", level=9).speed(4.3, 0), 7)
        self.check(fed(4).row(4.2, stream="tank", level=9), 7, "reached")
        again = fed(4).row(4.2, stream="tank", level=9).speed(4.3, 0).row(4.9, speed=60).speed(5, 60)
        self.check(again, 5.2, "interlock")
        self.check(fed(3).speed(3.6, 0), 8)  # it fell silent at 2.5 s
        self.check(fed(3), 8, "reached")
        def overridden():
            return fed(3).at(2.8, "override", output="pump", values={"speed": 70}, lease=9).speed(2.9, 70)
        self.check(overridden().speed(3.6, 0), 8)
        self.check(overridden(), 8, "reached")
        for unknown in ({"level": None}, {"other": 1}, {"level": 20, "quality": "bad"}):
            self.check(fed(4).row(3.9, stream="tank", **unknown).speed(4, 0), 4.5)
            self.check(fed(4).row(3.9, stream="tank", **unknown), 7, "reached")

    def test_a_trip_clears_late_or_by_a_person(self):
        late = TANK.format(age="never", more=', clear_after = "2s"')
        def tripped(terms):
            made = Story(terms).row(0.5, stream="tank", level=20).row(3, speed=50).speed(3.1, 50)
            return made.row(4, stream="tank", level=5).speed(4.1, 0).row(5, stream="tank", level=20)
        self.check(tripped(late).speed(7.1, 50), 9)
        self.check(tripped(late).speed(5.9, 50), 9, "interlock", "reached")
        self.check(tripped(late), 12, "reached")
        latch = TANK.format(age="never", more=", latch = true")
        self.check(tripped(latch), 9)
        self.check(tripped(latch).speed(7.1, 50), 9, "interlock", "reached")
        self.check(tripped(latch).at(8, "reset", output="pump").speed(8.2, 50), 11)
        self.check(tripped(latch).at(8, "reset", output="pump"), 11, "reached")

    def test_a_trip_passes_slew_unless_it_may_not(self):
        terms = 'slew = { speed = "10/s" }\n'
        def story(more):
            made = Story(terms + TANK.format(age="never", more=more)).row(0.5, stream="tank", level=20)
            made.wants(1, 15).speed(1.1, 5).speed(1.6, 10).speed(2.1, 15)
            return made.row(3, stream="tank", level=5)
        self.check(story("").speed(3.1, 0), 5)
        self.check(story(", trip_ramp = true").speed(3.1, 10).speed(3.6, 5).speed(4.1, 0), 6)
        self.check(story(", trip_ramp = true").speed(3.1, 0), 6, "slew")

    def test_pairs_are_never_both_on(self):
        terms = 'never_with = ["reverse"], dead_time = "500ms"'
        def story():
            made = Story(terms, config=PAIR, rule=None)
            for name in ("forwards", "reverse"):
                made.at(0, "rule", name=name, output=name, stream=name, columns={"run": "run"})
            return made
        def forwards(t, on, **more):
            return t, "coil", 1, on, *more.values()
        def reverse(t, on, **more):
            return t, "coil", 2, on, *more.values()
        good = story().row(1, stream="forwards", run=True).write(*reverse(1.1, 0)).write(*forwards(1.7, 1))
        good.row(3, stream="forwards", run=False).row(3.01, stream="reverse", run=True)
        good.write(*forwards(3.1, 0)).write(*reverse(3.7, 1))
        self.assertEqual(self.check(good, 5).judged["never both"], 2)
        both = story().row(1, stream="forwards", run=True).write(*reverse(1.1, 0)).write(*forwards(1.7, 1))
        self.check(both.row(3, stream="reverse", run=True).write(*reverse(3.1, 1)), 5, "never both")
        self.check(story().row(1, stream="forwards", run=True).write(*forwards(1.1, 1)), 3, "never both")
        soon = story().row(1, stream="forwards", run=True).write(*reverse(1.1, 0)).write(*forwards(1.3, 1))
        self.check(soon, 3, "never both")
        silent = story().row(1, stream="forwards", run=True).write(*reverse(1.1, 0, did="lost"))
        self.check(silent.write(*forwards(1.9, 1)), 3, "never both")
        outage = story().row(1, stream="forwards", run=True).write(*reverse(1.1, 0)).line(1.2, False)
        self.check(outage.line(1.3, True).write(*forwards(1.9, 1)), 3, "never both")
        restart = story().write(*reverse(0.9, 0)).at(1, "kill").at(1.2, "start")
        restart.row(1.5, stream="forwards", run=True)
        self.check(restart.write(*forwards(1.9, 1)), 3, "never both")

    def test_after_a_start_somebody_must_claim_something(self):
        self.check(Story().speed(0.5, 0), 3, "wanted")
        grace = 'startup = "failsafe"\nstartup_grace = "1s"'
        self.check(Story(grace).speed(1.1, 0), 3)
        self.check(Story(grace).speed(0.5, 0), 3, "wanted")
        restart = Story().wants(1, 50).speed(1.1, 50).at(4, "kill").at(5, "start")
        self.check(restart, 7)
        self.check(restart.speed(5.9, 50), 7, "wanted")
        again = Story().wants(1, 50).speed(1.1, 50).wants(1.9, 70).at(2, "kill").at(3, "start").speed(3.1, 70)
        self.check(again, 5)  # it was not acknowledged, and came again
        stop = Story().wants(1, 50).speed(1.1, 50).at(2, "stop", until=2.5).speed(2.2, 0)
        self.check(stop, 4)

    def test_what_was_demanded_in_an_outage_is_not_written_afterwards(self):
        def story():
            made = Story(expiry="2s").wants(1, 20).speed(1.1, 20).line(1.5, False)
            return made.row(2, speed=80).line(6, True)
        self.check(story().speed(6.1, 0), 9)
        self.check(story().speed(6.1, 80), 9, "wanted", "reached")
        def alive():
            made = Story().wants(1, 20).speed(1.1, 20).line(1.5, False).row(2, speed=80).row(2.5, speed=30)
            return made.line(4, True)
        self.check(alive().speed(4.1, 30), 6)
        self.check(alive().speed(4.1, 80).speed(4.2, 30), 6, "wanted")

    def test_retries(self):
        terms = 'retries = 2\nretry_after = "500ms"'
        def story():
            return Story(terms).at(0.9, "fault", connection="plc", on=True).wants(1, 50)
        good = story().speed(1.1, 50, "lost").speed(1.7, 50, "lost").speed(2.3, 50, "lost")
        self.assertEqual(self.check(good, 6).judged["retries"], 2)
        many = story()
        for index in range(4):
            many.speed(1.1 + index * 0.6, 50, "silent")
        self.check(many, 6, "retries")
        self.check(story().speed(1.1, 50, "lost").speed(1.2, 50, "lost"), 6, "retries")
        self.check(story().speed(1.1, 50, "lost").row(1.15, speed=50).speed(1.2, 50, "lost"), 6)
        read_back = 'read_back = { within = "1s", retries = 0 }'
        ignored = Story(read_back).at(0.9, "fault", connection="plc", on=True).wants(1, 50)
        self.check(ignored.speed(1.1, 50, "ignored").speed(2.2, 50, "ignored"), 6, "retries")

    def test_pulses_are_never_repeated(self):
        def story():
            return Story('kind = "event"', expiry="1s").row(1, run=True).row(2, run=True)
        self.check(story().run(1.1, True).run(2.1, True), 4)
        self.check(story().run(1.1, True, "lost").run(1.7, True).run(2.1, True), 4, "pulses")

    def test_refresh(self):
        def story():
            return Story('refresh = "1s"', expiry="60s").wants(1, 50)
        good = story()
        for second in range(1, 9):
            good.speed(second + 0.1, 50)
        self.assertGreater(self.check(good, 9).judged["refresh"], 5)
        self.check(story().speed(1.1, 50), 9, "refresh")

    def test_a_hand_at_the_panel_is_seen(self):
        ramp = 'slew = { speed = "10/s" }\n'
        story = Story(ramp).wants(1, 5).speed(1.1, 5).at(
            2, "panel", connection="plc", unit=1, table="holding", address=40, values=[400])
        self.check(story.row(3, speed=10).speed(3.1, 10), 5)

    def test_topics_are_instances(self):
        config = CONFIG.split("[outputs")[0] + """
[outputs.pump]
connection = "plant"
topic = "pump/{{line}}/set"
[outputs.pump.contract]
expiry = "{expiry}"
failsafe = {failsafe}
{terms}
"""
        rule = {**RULE, "columns": {"speed": "speed"}, "key": {"line": "line"}}
        def story(terms=""):
            made = Story(terms, expiry="3s", failsafe="{ speed = 0 }", config=config, rule=rule)
            return made.row(1, line="7", speed=50).row(1.2, line="8", speed=20)
        def message(made, t, line, speed):
            topic, payload = f"pump/{line}/set", f'{{"speed": {speed}}}'
            return made.at(t, "message", connection="plant", topic=topic, payload=payload)
        good = message(message(story(), 1.1, 7, 50), 1.3, 8, 20)
        self.assertEqual(self.check(good, 3.5).judged["wanted"], 2)
        self.check(message(message(good, 4.1, 7, 0), 4.3, 8, 0), 7)
        self.check(message(message(story(), 1.1, 7, 20), 1.3, 8, 50), 2, "wanted")
        self.check(message(story(), 1.1, 7, 50), 3.9, "reached")
        locked = story('interlock = { when = "guard.closed", max_age = "never" }')
        for line in "78":
            locked.row(0.5, stream="guard", line=line, closed=line == "8")
        self.check(message(message(locked, 1.1, 7, 0), 1.3, 8, 20), 3.5)


if __name__ == "__main__":
    unittest.main()
