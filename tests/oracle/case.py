"""One instance of an output, with all that the clauses ask of it."""

from dataclasses import dataclass, field

from demand import Demands
from trips import Trips


@dataclass
class Allowance:
    """Seconds."""

    hop: float = 0.15
    """until what was given has come to the box"""
    latency: float = 0.4
    """how long what is no longer so may still be seen: a tick and the line"""
    slack: float = 0.1
    """by how much the wire may shorten what the box kept: one request was slow, and the next was not"""
    bound: float = 3.0
    """until what must happen has happened"""


@dataclass
class Fault:
    """What should not have been."""

    clause: str
    place: str
    t: float
    text: str

    def __str__(self):
        return f"{self.clause}: {self.place} at {self.t:.3f} s: {self.text}"


@dataclass
class Verdict:
    """Faults, and how much was looked at for each clause."""

    faults: list = field(default_factory=list)
    judged: dict = field(default_factory=dict)

    def look(self, clause, count=1):
        """Something was looked at."""
        if count:
            self.judged[clause] = self.judged.get(clause, 0) + count


class Case:
    """What is known of one instance."""

    def __init__(self, record, output, instance, allowance, verdict):
        self.record, self.output, self.instance = record, output, instance
        self.contract, self.allowance, self.verdict = output.contract, allowance, verdict
        self.demands = Demands(record, output, instance)
        self.trips = Trips(record, output, instance)
        self.columns = record.columns(output.name, instance)

    def key(self, column):
        """Of the record."""
        return self.output.name, self.instance, column

    def attempts(self, column):
        """All requests that wrote the column."""
        return self.record.of_column(self.key(column))

    def fault(self, clause, column, t, text):
        """Something should not have been."""
        instance = f"[{self.instance}]" if self.instance else ""
        place = self.output.name + instance + (f".{column}" if column else "")
        self.verdict.faults.append(Fault(clause, place, t, text))

    def same(self, column, a, b):
        """Whether two values are the same on the wire."""
        if a is None or b is None or isinstance(a, tuple) or isinstance(b, tuple):
            return a is b or a == b
        if isinstance(a, str) or isinstance(b, str):
            return a == b
        return abs(float(a) - float(b)) <= self.output.quantum(column)

    def trip_values(self, column, t):
        """Where a trip may have sent it a moment before `t`."""
        return [value for value, _ in self.trips.perhaps(column, t - self.allowance.latency, t)]

    def is_trip(self, column, attempt):
        """Whether it may have been written by a trip, which passes limits."""
        jumps = [
            value for value, ramp in self.trips.perhaps(column, attempt.t - self.allowance.latency, attempt.t)
            if not ramp]
        return any(self.same(column, value, attempt.value) for value in jumps)

    def stops(self, t):
        """Whether the box was about to stop at `t`."""
        return any(span.a <= t <= span.b + self.allowance.latency for span in self.record.events["stop"])

    def broken_between(self, begin, end):
        """Whether line or box broke off between."""
        return any(begin < moment <= end for moment in self.record.breaks(self.output.connection))

    def hand_between(self, column, begin, end):
        """Whether somebody else wrote between."""
        return any(begin < panel.t <= end for panel in self.record.panels.get(self.key(column), ()))
