"""What may have been wanted of an output at a time, and what surely was.

Rules of tests copy: their columns are columns of one stream. So what a rule claims follows from the rows that
were given to the box. When each of them came is known to within a moment, so a question has several answers.
"""

import math
from bisect import bisect_right

import points
from contract import FOREVER

HOLD = ("hold",)  # nothing moves it


class Demands:
    """Of one instance of an output."""

    def __init__(self, record, output, instance):
        self.record, self.output, self.instance = record, output, instance
        self.contract = output.contract
        rules = [span for span in record.events["rule"] if span.what["output"] == output.name]
        # By rule: its rank, and what its rows claim: (a, b, values, whether surely).
        self.claims = {
            rule.what["name"]: (rule.what.get("rank", 8), self.of_rule(rule.what["name"], rules))
            for rule in rules}
        self.overrides = [
            (s, s.what["values"], s.what["lease"]) for s in record.events["override"] if self.is_meant(s)]
        self.releases = [s for s in record.events["release"] if self.is_meant(s)]
        self.changes = sorted(self.moments())

    def is_meant(self, span):
        """Whether a person meant this instance."""
        meant = span.what.get("instance", "")
        return span.what["output"] == self.output.name and meant in ("", self.instance)

    def of_rule(self, name, rules):
        """The rows that are claims, in order. A row meets each version that may have been there then."""
        versions = [rule for rule in rules if rule.what["name"] == name]
        ends = [span for span in self.record.events["gone"] if span.what["name"] == name]
        claims = []
        for row in self.record.events["row"]:
            met = [rule for rule in versions if rule.a <= row.b and not any(
                rule.a < end.a and end.b < row.a for end in [*ends, *versions])]
            for rule in met:
                key = rule.what.get("key", {})
                content = row.what["row"]
                if row.what["stream"] != rule.what["stream"] or key and self.instance != points.instance(
                    {name: content[of] for name, of in key.items()}, self.output.key
                ):
                    continue
                values = {c: number(content[of]) for c, of in rule.what["columns"].items() if of in content}
                sure, possible = self.admitted(rule.what, row, values)
                sure = sure and not row.what.get("perhaps") and len(met) == 1 and rule.a <= row.a and not any(
                    rule.a < end.a < row.b for end in ends)
                if possible:
                    claims.append((row.a, row.b, values, sure))
        return claims

    def admitted(self, rule, row, values):
        """(surely, perhaps)."""
        for column, value in values.items():
            if isinstance(value, float) and not math.isfinite(value):
                return False, False
            if self.contract.out_of_range == "refuse" and value is not None:
                if self.contract.clamped(column, value) != value:
                    return False, False
        sure = possible = True
        for stream in {rule["stream"], *rule.get("reads", ())}:
            limit = self.contract.age_limit(stream)
            if limit == FOREVER:
                continue
            # The youngest that its newest row can be when the claim comes, and the oldest.
            if stream == rule["stream"]:
                youngest = oldest = row.what.get("age", 0)
                oldest += row.b - row.a
            else:
                others = [r for r in self.record.events["row"] if r.what["stream"] == stream and r.a <= row.b]
                surely = [r for r in others if r.b <= row.a]
                youngest = min((max(row.a - r.b, r.what.get("age", 0)) for r in others), default=FOREVER)
                oldest = min((max(row.b - r.a, r.what.get("age", 0)) for r in surely), default=FOREVER)
            possible = possible and youngest <= limit
            sure = sure and oldest <= limit
        return sure and possible, possible

    def moments(self):
        """When an answer may change."""
        expiry = self.contract.expiry
        for _, claims in self.claims.values():
            for a, b, _, _ in claims:
                yield from (a, b)
                if expiry != FOREVER:
                    for moment in (a + expiry, b + expiry):
                        yield from (moment, moment + self.contract.failsafe_after)
        for span, _, lease in self.overrides:
            yield from (span.a, span.b, span.a + lease, span.b + lease)
        for what in ("release", "gone", "rule", "start", "stop", "kill"):
            for span in self.record.events[what]:
                yield from (span.a, span.b)

    def options(self, name, column, t):
        """What a rule may claim at `t`: values, and None for no claim. Columns are claimed one by one."""
        start = self.record.started(t)
        gone = [span for span in self.record.events["gone"] if span.what["name"] == name and span.a <= t]
        found, certain, newest, alive = set(), None, None, {None}
        for a, b, values, surely in self.claims[name][1]:
            if a > t or start is not None and b < start.a or any(b < span.a and span.b <= t for span in gone):
                continue
            # A row without the column renews what is claimed of it.
            of_column = {values[column]} if column in values else alive
            if surely and b <= t:
                found, certain = set(), None if any(b < span.a for span in gone) else a
            found |= of_column
            newest, alive = (a, b), set(found)
        if newest is None or t > newest[1] + self.contract.expiry:
            return {None}
        # What came surely may have ended before what came perhaps.
        return found if certain is not None and t < certain + self.contract.expiry else found | {None}

    def overridden(self, column, t):
        """The values that an override may have at `t`, and whether there surely is one."""
        found, sure = set(), False
        for span, values, lease in self.overrides:
            later = [s for s in [*self.releases, *(o for o, _, _ in self.overrides)] if s.a > span.a]
            first = min((s.a for s in later), default=FOREVER)
            last = min((s.b for s in later), default=FOREVER)
            if column in values and span.a <= t <= min(span.b + lease, last):
                found.add(number(values[column]))
                sure = sure or span.b <= t < min(span.a + lease, first)
        return found, sure

    def at(self, column, t):
        """All that may be demanded at `t`."""
        found, sure = self.overridden(column, t)
        if sure:
            return found
        for rank in sorted({rank for rank, _ in self.claims.values()}):
            certain = False
            for name, (of_rule, _) in self.claims.items():
                if of_rule == rank:
                    options = self.options(name, column, t)
                    found |= options - {None}
                    certain = certain or None not in options
            if certain:
                return found
        failsafe = self.contract.failsafe_of(column)
        failsafe = HOLD if failsafe is None else number(failsafe)
        if self.contract.failsafe_after == 0:
            return found | {failsafe}
        perhaps, surely = self.unclaimed(column, t)
        return found | ({failsafe} if perhaps else set()) | (set() if surely else {HOLD})

    def claimed(self, column, begin, end):
        """Whether somebody surely claims it all the time."""
        return all(
            self.overridden(column, moment)[1]
            or any(None not in self.options(name, column, moment) for name in self.claims)
            for moment in self.of_span(begin, end))

    def unclaimed(self, column, t):
        """Whether for `failsafe_after` perhaps nobody has claimed anything, and whether surely nobody has."""
        moments = self.of_span(t - self.contract.failsafe_after, t)
        options = [self.options(name, column, moment) for moment in moments for name in self.claims]
        return all(None in option for option in options), all(option == {None} for option in options)

    def renewals(self):
        """When somebody may have wanted something anew."""
        yield from (a for _, claims in self.claims.values() for a, _, _, _ in claims)
        yield from (span.a for span in [*self.releases, *(span for span, _, _ in self.overrides)])

    def within(self, column, begin, end):
        """All that may be demanded at some time of the span."""
        return set().union(*(self.at(column, moment) for moment in self.of_span(begin, end)))

    def of_span(self, begin, end):
        """Its ends, and when something may have changed between."""
        first, last = bisect_right(self.changes, begin), bisect_right(self.changes, end)
        return [begin, end, *self.changes[first:last]]

    def ever_since(self, t, start):
        """Whether anything may have been claimed between a start and `t`."""
        if any(a <= t and b >= start for _, claims in self.claims.values() for a, b, _, _ in claims):
            return True
        return any(span.a <= t for span, _, _ in self.overrides)


def number(value):
    """Truth values and what is missing as they are, everything else as a float; a text is one, too."""
    if value is None or isinstance(value, bool):
        return value
    try:
        return float(value)
    except ValueError:
        return value
