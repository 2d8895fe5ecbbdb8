"""When an interlock may have tripped, and when it surely had."""

from bisect import bisect_right
from itertools import product

import points
from contract import FOREVER
from demand import number


class Trip:
    """One interlock of one instance."""

    def __init__(self, record, output, instance, interlock):
        self.record, self.output, self.instance, self.interlock = record, output, instance, interlock
        self.rows = {stream: self.of_stream(stream) for stream in interlock.when.streams}
        self.resets = [s for s in record.events["reset"] if s.what["output"] == output.name]
        self.moments = sorted(self.changes())
        self.raw = [(t, *self.read(t + 1e-9)) for t in self.moments]
        self.turns = sorted({*self.moments, *(t + interlock.clear_after for t in self.moments)})

    def of_stream(self, stream):
        """Its rows; of a keyed stream those of the instance."""
        rows = [row for row in self.record.events["row"] if row.what["stream"] == stream]
        key = self.output.key
        if key and all(set(key) <= set(row.what["row"]) for row in rows):
            rows = [row for row in rows if points.instance(row.what["row"], key) == self.instance]
        return rows

    def changes(self):
        """When something about it may change."""
        yield 0.0
        for rows in self.rows.values():
            for row in rows:
                yield from (row.a, row.b)
                if self.interlock.max_age != FOREVER:
                    yield from (row.a + self.interlock.max_age, row.b + self.interlock.max_age)
        for span in [*self.record.events["start"], *self.resets]:
            yield from (span.a, span.b)

    def read(self, t):
        """(perhaps tripped, surely tripped, whether all streams have spoken since the start)."""
        start = self.record.started(t)
        options = []
        for stream, rows in self.rows.items():
            possible = [row for row in rows if row.a <= t and (start is None or row.b >= start.a)]
            came = [row for row in possible if row.b <= t and not row.what.get("perhaps")]
            surely = max(came, key=lambda row: row.b, default=None)
            later = [row for row in possible if row not in came and (surely is None or row.b > surely.b)]
            options.append([(stream, row) for row in ([surely] if surely else [None]) + later])
        perhaps, surely = False, True
        for choice in product(*options):
            rows = {stream: values(row) for stream, row in choice}
            tripped = self.interlock.when.holds(rows) is not True
            present = [row for _, row in choice if row is not None]
            old = tripped or len(present) < len(choice) or any(
                t > row.b + self.interlock.max_age for row in present)
            perhaps_old = old or any(t > row.a + self.interlock.max_age for row in present)
            perhaps, surely = perhaps or perhaps_old, surely and old
        return perhaps, surely, all(option != [(stream, None)] for option, stream in zip(options, self.rows))

    def state(self, t):
        """(perhaps tripped, surely tripped) at `t`, with `clear_after` and `latch`."""
        at = bisect_right(self.moments, t) - 1
        if at < 0:
            return True, True
        perhaps, surely, _ = self.raw[at][1:]
        for index in range(at, -1, -1):  # how it was until then
            _, was_perhaps, was_surely, heard = self.raw[index]
            end = self.moments[index + 1] if index + 1 < len(self.moments) else FOREVER
            if self.interlock.latch:
                reset_may = any(min(end, t) <= s.b and s.a <= t for s in self.resets)
                reset_did = any(min(end, t) <= s.a and s.b <= t for s in self.resets)
                perhaps = perhaps or was_perhaps and not reset_did
                # That nothing has come yet is no reason for a person to come.
                surely = surely or was_surely and heard and not reset_may
            elif t - end < self.interlock.clear_after or index == at:
                # That nothing has come yet has to be over, and not to be over for so long.
                perhaps, surely = perhaps or was_perhaps, surely or was_surely and (heard or index == at)
            else:
                break
        return perhaps, surely

    def within(self, begin, end):
        """Whether it may have been tripped some time in the span, and whether it surely was all the time."""
        first, last = bisect_right(self.turns, begin), bisect_right(self.turns, end)
        states = [self.state(moment) for moment in [begin, end, *self.turns[first:last]]]
        return any(perhaps for perhaps, _ in states), all(surely for _, surely in states)


class Trips:
    """All interlocks of an instance."""

    def __init__(self, record, output, instance):
        self.all = [Trip(record, output, instance, one) for one in output.contract.interlocks]
        self.changes = sorted({turn for one in self.all for turn in one.turns})

    def heard(self, t):
        """Whether all streams of an interlock may have spoken since the start."""
        return any(one.raw[max(bisect_right(one.moments, t) - 1, 0)][3] for one in self.all)

    def perhaps(self, column, begin, end):
        """The values where it may have been sent in the span by a trip: (value, whether by a ramp)."""
        return [
            (number(one.interlock.trip[column]), one.interlock.ramp) for one in self.all
            if column in one.interlock.trip and one.within(begin, end)[0]]

    def surely(self, column, begin, end):
        """As that, of a trip that surely lasted all the time. Several may differ: then all of them."""
        return [
            (number(one.interlock.trip[column]), one.interlock.ramp) for one in self.all
            if column in one.interlock.trip and one.within(begin, end)[1]]


def values(row):
    """Of a row that is not `good`, nothing is known."""
    if row is None:
        return None
    content = row.what["row"]
    return {} if content.get("quality", "good") != "good" else content
