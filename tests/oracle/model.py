"""A small box that keeps a contract, in simulated time, to try the oracle on: what it does is right, unless
one clause is taken away from it. Rows come to it late, and what it sends comes late to the device, as on a
busy machine."""

import random

from contract import outputs
from story import Story

TERMS = """interlock = { when = "tank.level > 10", max_age = "1500ms", clear_after = "300ms" }
min_on = "1s"
min_off = "1500ms"
range = { speed = [0, 80] }
slew = { speed = "60/s" }
slew_every = "200ms"
deadband = { speed = 1 }
rate = "5/s"
retries = 2
retry_after = "300ms"
"""
TICK = 0.01


class Model:
    """What it has to forget is in `without`: the names of clauses."""

    def __init__(self, seed, without=()):
        self.dice, self.without = random.Random(seed), without
        self.story = Story(TERMS, expiry="2s")
        self.contract = outputs(self.story.config)["pump"].contract
        self.now, self.runs, self.up = 0.0, True, True
        self.inbox = []  # (when, what it does)
        self.line_free = self.arrival = 0.0
        self.changed = {}  # column: when it was last changed on the wire
        self.loss = 0  # writes that get lost
        self.held = {"run": False, "speed": 0.0}  # by the device
        self.begin()

    override = None

    def begin(self):
        """The box starts: it knows nothing but its minimum times, and overrides."""
        self.claims, self.rows, self.known = {}, {}, {}
        self.on_ramp = False
        self.asked, self.cleared, self.stepped = False, None, -9.0
        self.sent, self.tries, self.pending = [], {}, {}

    # What happens to it.

    def give(self, stream, **row):
        """A row, which comes a moment later."""
        self.story.row(self.now, stream=stream, **row)
        if self.runs:
            self.arrival = max(self.arrival, self.now + self.dice.uniform(0, 0.1))
            self.inbox.append((self.arrival, lambda: self.take(stream, row)))

    def take(self, stream, row):
        """It has come."""
        self.rows[stream] = (self.now, row)
        if stream == "want":
            for column, value in row.items():
                self.claims[column] = (value, self.now)
            self.asked, self.tries = True, {}

    def overrides(self, column, value, lease):
        """A person wants something."""
        self.story.at(self.now, "override", output="pump", values={column: value}, lease=lease)
        self.override, self.asked, self.tries = (column, value, self.now + lease), True, {}

    def line(self, up):
        """The line goes or comes."""
        self.now = max(self.now, self.line_free)  # what is on the way arrives
        self.up, self.known, self.pending = up, {}, {}
        self.story.line(self.now, up)

    def restart(self):
        """It is killed, and is there again."""
        self.story.at(self.now, "kill")
        self.inbox, changed = [], self.changed
        self.pass_time(0.3, runs=False)
        self.story.at(self.now, "start")
        self.begin()
        self.changed = {} if "minimum times" in self.without else changed

    # What it does.

    def pass_time(self, seconds, runs=True):
        """It ticks."""
        self.runs, end = runs, self.now + seconds
        while self.now < end:
            self.now += TICK
            for due in [item for item in self.inbox if item[0] <= self.now]:
                self.inbox.remove(due)
                due[1]()
            trip = self.tripped()
            if runs and self.up and self.asked:
                self.tick(trip)
        self.runs = True

    def tripped(self):
        """By the newest row, and for a while after it is right again."""
        if "interlock" in self.without:
            return False
        came, row = self.rows.get("tank", (-9.0, {}))
        bad = (row.get("level") or 0) <= 10 or self.now - came > 1.5
        if bad:
            self.cleared = None
        elif self.cleared is None:
            self.cleared = self.now
        return bad or self.now - self.cleared < 0.3

    def demanded(self, column):
        """Override, claim, or failsafe."""
        if self.override and self.override[0] == column and self.now < self.override[2]:
            return self.override[1]
        value, since = self.claims.get(column, (None, -9.0))
        if self.now - since > 2 and "wanted" not in self.without:
            value = None
        return (False if column == "run" else 0.0) if value is None else value

    def tick(self, trip):
        """Each column goes on towards its target."""
        self.on_ramp = self.on_ramp and not trip
        for column in ("speed", "run"):
            if self.pending.get(column, 0) > self.now:
                continue
            failsafe = False if column == "run" else 0.0
            target = failsafe if trip else self.demanded(column)
            if column == "speed" and "range" not in self.without:
                target = min(max(target, 0.0), 80.0)
            value = target if trip else self.limited(column, target)
            if value is not None and (value != self.known.get(column) or "deadband" in self.without):
                self.write(column, value, trip)

    def limited(self, column, target):
        """What may go out now; None: nothing."""
        known = self.known.get(column)
        if column == "run":
            least = self.contract.min_off if target else self.contract.min_on
            held = known if known is not None else self.held["run"]
            early = held != target and self.now - self.changed.get("run", -9.0) < least
            return None if early and "minimum times" not in self.without else target
        start = self.held["speed"] if known is None else known
        if known is not None and abs(target - known) <= 1 and target not in (0.0, 80.0) and not self.on_ramp:
            return None
        if "slew" in self.without:
            return target
        if self.now - self.stepped < 0.2:
            return None
        value = round(min(max(target, start - 12), start + 12), 1)
        self.on_ramp = value != target
        return value

    def write(self, column, value, trip):
        """One request, a moment later on the wire."""
        recent = [t for t in self.sent if self.now - t < 1]
        if len(recent) >= 5 and not trip and "rate" not in self.without:
            return
        tries = self.tries.get((column, value), 0)
        if tries > 2 and "retries" not in self.without:
            return
        self.sent = [*recent, self.now]
        self.stepped = self.now if column == "speed" else self.stepped
        self.line_free = at = max(self.line_free, self.now) + self.dice.uniform(0.001, 0.03)
        did = "taken" if self.loss == 0 else self.dice.choice(["lost", "silent", "refused"])
        if did != "taken":
            self.loss -= 1
            self.tries[column, value] = tries + 1
            self.pending[column] = self.now + 0.4
            self.known.pop(column, None)
        else:
            self.known[column] = value
        if did in ("taken", "silent"):
            if self.held[column] != value:
                self.changed[column] = at
            self.held[column] = value
        self.story.run(at, value, did) if column == "run" else self.story.speed(at, round(value, 1), did)


def storm(seed, without=(), steps=60):
    """A story of a box to which much happens; in the end it has time."""
    model = Model(seed, without)
    dice = random.Random(seed)
    for _ in range(steps):
        turn = dice.randrange(100)
        if turn < 40:
            model.give("want", run=dice.random() < 0.6, speed=round(dice.uniform(0, 100), 1))
        elif turn < 80:
            model.give("tank", level=dice.choice([20, 20, 20, 20, 20, 20, 5, None]))
        elif turn < 84:
            model.loss = dice.choice([1, 9])
            model.story.at(model.now, "fault", connection="plc", on=True)
            model.pass_time(1.5)
            model.story.at(model.now, "fault", connection="plc", on=False)
            model.loss = 0
        elif turn < 88:
            model.line(False)
            model.pass_time(dice.uniform(0, 1))
            model.line(True)
        elif turn < 92:
            model.overrides("speed", float(dice.randrange(80)), dice.uniform(0.5, 2))
        elif turn < 94:
            model.restart()
        model.pass_time(dice.uniform(0.02, 0.4))
    for _ in range(30):
        model.give("tank", level=20)
        model.give("want", run=True, speed=55.5)
        model.pass_time(0.3)
    return model
