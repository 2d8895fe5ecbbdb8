"""What happened, as it was written down: an object a line, with times of the monotonic clock in nanoseconds.

    write     what a device was asked: connection, unit, table, address, values; `answered`: when, or null;
              `did`: taken, refused, ignored (it said yes), silent (no answer, and taken), lost (no answer,
              and not); `applied`: whether it was taken
    message   what a broker was given: connection, topic, payload
    line      a connection is up, or is not: connection, up
    panel     somebody else wrote: connection, unit, table, address, values
    fault     a device began to misbehave, or ended: connection, on
    start, stop, kill   of the box; `until`: when that was done
    rule      name, rank, output, stream, reads, columns (of the output: of the stream), key (likewise)
    gone      a rule is removed, disabled or in shadow: name
    row       what a stream was given: stream, row, age (seconds that its `ts` is old); `sure`: rules had it
    override, release, reset    output, instance, values, lease (seconds)
    end       nobody looked any further

Where something cannot be known to the instant, `t` is the earliest, and `until` the latest.
"""

import json
from collections import defaultdict
from dataclasses import dataclass, field

import points

ENDS = ("stop", "kill")


@dataclass
class Attempt:
    """A request that wrote a column."""

    t: float
    value: object
    did: str = "taken"
    applied: bool = True
    answered: float | None = None
    request: int = 0


@dataclass
class Span:
    """Something that began at some time within `[a, b]`."""

    a: float
    b: float
    what: dict = field(default_factory=dict)


class Record:
    """Times are seconds since the first."""

    def __init__(self, lines, outputs, hop):
        events = sorted((json.loads(line) for line in lines if line.strip()), key=lambda event: event["t"])
        self.zero = events[0]["t"]
        self.outputs = outputs
        self.attempts = defaultdict(list)
        self.panels = defaultdict(list)
        self.instances = defaultdict(set)
        self.events = defaultdict(list)
        for number, event in enumerate(events):
            self.take(number, event, hop)
        self.end = self.events["end"][-1].a if self.events["end"] else self.seconds(events[-1]["t"])
        for of_column in self.attempts.values():
            of_column.sort(key=lambda attempt: attempt.t)
        for name, output in outputs.items():
            if not output.key:
                self.instances[name].add("")
        self.late_rows()
        self.repeated_rows(hop)
        self.claimed = self.claimed_columns()

    def seconds(self, nanoseconds):
        """Since the beginning."""
        return None if nanoseconds is None else (nanoseconds - self.zero) / 1e9

    def take(self, number, event, hop):
        """Sorts an event in."""
        what, t = event["what"], self.seconds(event["t"])
        if what in ("write", "panel"):
            self.of_device(number, event, t)
        elif what == "message":
            for name, output in self.outputs.items():
                if output.topic and output.connection == event["connection"]:
                    found = points.of_message(output, event["topic"], event["payload"])
                    for column, value in found[1].items() if found else ():
                        self.add(name, found[0], column, Attempt(t, value, answered=t, request=number))
        else:
            later = hop if what in HOPS and not event.get("sure") else 0
            until = self.seconds(event.get("until", event["t"])) + later
            self.events[what].append(Span(t, until, event))

    def of_device(self, number, event, t):
        """A request, or a hand at the panel."""
        for name, output in self.outputs.items():
            if not output.points or (output.connection, output.unit) != (event["connection"], event["unit"]):
                continue
            columns = points.of_request(output.points, event["table"], event["address"], event["values"])
            for column, value in columns.items():
                if event["what"] == "panel":
                    self.panels[name, "", column].append(Attempt(t, value))
                else:
                    answered = self.seconds(event.get("answered"))
                    attempt = Attempt(t, value, event["did"], event["applied"], answered, number)
                    self.add(name, "", column, attempt)

    def add(self, output, instance, column, attempt):
        """An attempt at a column."""
        self.instances[output].add(instance)
        self.attempts[output, instance, column].append(attempt)

    def late_rows(self):
        """A row that was given while the box was away has come when it was back, or not at all."""
        for row in self.events["row"]:
            if not self.runs(row.a):
                back = min((start.b for start in self.events["start"] if start.a > row.a), default=row.a)
                row.b = max(row.b, back + row.b - row.a)

    def repeated_rows(self, hop):
        """What was not acknowledged when the box was killed comes again when it is back."""
        for kill in self.events["kill"]:
            back = next((start for start in self.events["start"] if start.a >= kill.a), None)
            rows = [row for row in self.events["row"] if kill.a - UNACKNOWLEDGED < row.b <= kill.b]
            for row in rows if back else ():
                again = {**row.what, "perhaps": True}
                self.events["row"].append(Span(back.a, back.b + hop, again))
        self.events["row"].sort(key=lambda row: row.a)

    def claimed_columns(self):
        """Of each output, the columns that rules claim or people override; instances are known then, too."""
        claimed = defaultdict(set)
        for rule in (span.what for span in self.events["rule"]):
            claimed[rule["output"]] |= set(rule["columns"])
            rows = [row.what["row"] for row in self.events["row"] if row.what["stream"] == rule["stream"]]
            key = rule.get("key", {})
            if key and rule["output"] in self.outputs:
                named = self.outputs[rule["output"]].key
                self.instances[rule["output"]] |= {
                    points.instance({name: row[of] for name, of in key.items()}, named) for row in rows}
        for override in (span.what for span in self.events["override"]):
            claimed[override["output"]] |= set(override["values"])
        return claimed

    def runs(self, t):
        """Whether the box ran then."""
        begun = [start.a for start in self.events["start"] if start.a <= t]
        ended = [end.a for what in ENDS for end in self.events[what] if end.a <= t]
        return bool(begun) and (not ended or max(begun) > max(ended))

    def started(self, t):
        """The start before `t`."""
        return max((start for start in self.events["start"] if start.a <= t), key=lambda s: s.a, default=None)

    def ends(self):
        """When the box ended, however."""
        return sorted((end for what in ENDS for end in self.events[what]), key=lambda end: end.a)

    def of_column(self, key):
        """The attempts at a column, in order."""
        return self.attempts.get(key, [])

    def columns(self, output, instance):
        """Columns that were written, or are points."""
        known = set(self.outputs[output].points or ()) | self.claimed[output]
        return sorted(known | {c for o, i, c in self.attempts if (o, i) == (output, instance)})

    def truth(self, key, t):
        """What the device holds at `t`; None: nobody knows."""
        changes = [a for a in self.of_column(key) if a.applied and a.t <= t]
        changes += [panel for panel in self.panels.get(key, ()) if panel.t <= t]
        if changes:
            return max(changes, key=lambda change: change.t).value
        output = self.outputs[key[0]]
        if output.points is None:
            return None
        return False if output.is_switch(key[2]) else 0.0

    def breaks(self, connection):
        """When a line went or came, the box started or ended: from then on nothing is known."""
        lines = [line.a for line in self.events["line"] if line.what["connection"] == connection]
        return sorted(lines + [start.a for start in self.events["start"]] + [end.a for end in self.ends()])

    def disturbed(self, connection, begin, end):
        """The last time within the span at which the box, the line or the device was not as it should be;
        None: it was all right all the time."""
        last = None
        up = {"line": True, "fault": True}
        points_in_time = sorted(
            [(line.a, "line", line.what["up"]) for line in self.of("line", connection)]
            + [(fault.a, "fault", not fault.what["on"]) for fault in self.of("fault", connection)])
        for t, what, good in points_in_time:
            if t > end:
                break
            if t >= begin:
                last = t
            up[what] = good
        for span in self.events["start"]:
            if begin <= span.b <= end:
                last = max(last or 0, span.b)
        if any(begin <= span.a <= end for span in self.ends()) or not self.runs(end) or not all(up.values()):
            return end
        return last

    def of(self, what, connection):
        """Events of a connection."""
        return [span for span in self.events[what] if span.what["connection"] == connection]


# For how long a row may not be on disk, and not be acknowledged to its broker, in seconds.
UNACKNOWLEDGED = 2

# What the box learns of a moment later.
HOPS = ("row", "override", "release", "reset", "gone", "start")
