"""Nothing goes out that nobody wants then, and what is wanted does go out."""

import math

from demand import HOLD


def wanted(case):
    """Each value is what is demanded at that time, what a trip or failsafe says, or on the way there."""
    for column in case.columns:
        for index, attempt in enumerate(case.attempts(column)):
            case.verdict.look("wanted")
            before = case.attempts(column)[index - 1] if index else None
            begin = attempt.t - case.allowance.latency
            demanded = case.demands.within(column, begin, attempt.t)
            if not started(case, column, attempt):
                continue
            allowed = [case.contract.clamped(column, value) for value in demanded if value != HOLD]
            more = also(case, column, attempt, before)
            if tripped(case, column, attempt, before):
                continue
            if case.is_trip(column, attempt) or any(
                case.same(column, value, attempt.value) for value in allowed + more
            ):
                continue
            goals = allowed if column in case.contract.slew else []
            goals = goals + [value for value, ramp in case.trips.perhaps(column, begin, attempt.t) if ramp]
            if not any(on_the_way(case, column, start, attempt.value, goal)
                       for goal in goals for start in starts(case, column, attempt, before)):
                shown = ", ".join(sorted("nothing" if v == HOLD else f"{v}" for v in demanded))
                case.fault("wanted", column, attempt.t, f"{attempt.value} is written, and {shown} was wanted")


def tripped(case, column, attempt, before):
    """Whether a trip surely says where it goes; nothing else may be written then."""
    values = case.trips.surely(column, attempt.t - case.allowance.latency, attempt.t)
    if not values:
        return False
    case.verdict.look("interlock")
    begun = starts(case, column, attempt, before)
    if not any(
        case.same(column, value, attempt.value)
        or ramp and any(on_the_way(case, column, start, attempt.value, value) for start in begun)
        for value, ramp in values
    ):
        case.fault("interlock", column, attempt.t, f"{attempt.value} is written while it is tripped")
    return True


def also(case, column, attempt, before):
    """What may go out besides."""
    values = []
    if before is not None and (
        not case.broken_between(before.t, attempt.t) or must_stay(case, column, before.value, attempt.t)
    ):
        # It was not taken, is refreshed, or waits for its minimum time.
        values.append(before.value)
    if case.stops(attempt.t) and case.contract.on_stop == "failsafe":
        values.append(case.contract.failsafe_of(column))
    if (case.contract.read_back or {}).get("on_mismatch") == "failsafe" and before and before.did != "taken":
        values.append(case.contract.failsafe_of(column))
    if case.contract.never_with:
        values.append(False if case.output.is_switch(column) else 0.0)
    return values


def must_stay(case, column, value, t):
    """Whether a minimum time holds the value."""
    least = {True: case.contract.min_on, False: case.contract.min_off}.get(value, 0)
    turns = [a.t for b, a in zip([None, *case.attempts(column)], case.attempts(column))
             if a.applied and a.t < t and (b is None or b.value != a.value)]
    return bool(least and turns) and t - turns[-1] <= least + case.allowance.latency


def started(case, column, attempt):
    """After a start nothing is written before somebody wants something, or an interlock trips."""
    start = case.record.started(attempt.t)
    if start is None:
        case.fault("wanted", column, attempt.t, "the box was never started")
        return False
    if case.demands.ever_since(attempt.t, start.a) or case.stops(attempt.t):
        return True
    trips = case.trip_values(column, attempt.t)
    if any(case.same(column, value, attempt.value) for value in trips) and case.trips.heard(attempt.t):
        return True
    grace = case.contract.startup == "failsafe" and attempt.t >= (
        start.a + case.contract.startup_grace - case.allowance.slack)
    if not grace and not case.contract.never_with:
        case.fault("wanted", column, attempt.t, (
            f"{attempt.value} is written {attempt.t - start.a:.3f} s after a start, "
            "and nobody has claimed anything"))
        return False
    return True


def starts(case, column, attempt, before):
    """Where a ramp may have begun."""
    key, t = case.key(column), attempt.t - 1e-6
    found = [case.record.truth(key, t), case.contract.failsafe_of(column)]
    found += [before.value] if before else []
    return [value for value in found if value is not None]


def on_the_way(case, column, start, value, goal):
    """Whether a value lies between two others."""
    if any(isinstance(v, (bool, str)) or v is None for v in (start, value, goal)):
        return False
    margin = case.output.quantum(column)
    return min(start, goal) - margin <= value <= max(start, goal) + margin


def target(case, column, begin, end):
    """What surely was to be there all the time of the span, and whether by a trip; None: it is not known."""
    perhaps = case.trips.perhaps(column, begin, end)
    if perhaps:
        surely = case.trips.surely(column, begin, end)
        return (surely[0][0], True, surely[0][1]) if len(surely) == 1 == len(perhaps) else None
    if any(one.within(begin, end)[0] for one in case.trips.all):
        return None  # a trip that does not speak of this column
    demanded = {case.contract.clamped(column, v) for v in case.demands.within(column, begin, end)}
    return (demanded.pop(), False, False) if len(demanded) == 1 else None


def segments(case, column):
    """Spans in which the target surely was one value."""
    panels = [panel.t for panel in case.record.panels.get(case.key(column), ())]
    moments = sorted({0.0, case.record.end, *case.demands.changes, *case.trips.changes, *panels})
    moments = [moment for moment in moments if 0 <= moment <= case.record.end]
    current = None  # [begin, end, target]
    for begin, end in zip(moments, moments[1:]):
        if end - begin < 1e-6:
            continue
        found = target(case, column, begin + 1e-7, end - 1e-7)
        if current and found == current[2] and begin not in panels:
            current[1] = end
            continue
        if current and current[2] is not None:
            yield current
        current = [begin, end, found]
    if current and current[2] is not None:
        yield current


def reached(case):
    """What surely was the target for long enough is there, exactly; and the failsafe value after expiry."""
    if case.contract.kind == "event":
        return
    for column in case.columns:
        for begin, end, (value, tripped, ramp) in segments(case, column):
            if value == HOLD:
                continue
            begin = free(case, column, begin, end)
            if begin is None:
                continue
            held = case.record.truth(case.key(column), begin)
            needs = time_needed(case, column, begin, held, value, jumps=tripped and not ramp)
            if needs is None:
                continue
            if end - begin < needs:  # too short to complain, and not to see that it went well
                case.verdict.look("reached", int(there(case, column, held, value, tripped, end)))
                continue
            case.verdict.look("reached")
            if any(not there(case, column, held, value, tripped, at) for at in (begin + needs, end)):
                now = case.record.truth(case.key(column), end)
                case.fault("reached", column, begin + needs, (
                    f"{value} has been the target for {needs:.3f} s, "
                    f"{'by a trip' if tripped else 'demanded'}; "
                    f"at {end:.3f} s {now} is there"))


def there(case, column, held, value, tripped, at):
    """Whether the device holds the value at a time. What it held may be so near that nothing is sent."""
    now, band = case.record.truth(case.key(column), at), case.contract.deadband.get(column, 0)
    if case.same(column, now, value):
        return True
    near = band > 0 and not tripped and held is not None and now is not None
    return near and max(abs(held - value), abs(now - value)) <= band


def free(case, column, begin, end):
    """From when on nothing disturbed box, line and device; None: there is no such time, or nothing was
    claimed since the start."""
    disturbed = case.record.disturbed(case.output.connection, begin, end)
    begin = begin if disturbed is None else disturbed
    if begin >= end or any(span.a <= end and span.b >= begin for span in case.record.events["stop"]):
        return None
    start = case.record.started(begin)
    if start is None or not case.demands.ever_since(begin, start.a):
        return None
    tried = [attempt for attempt in case.attempts(column) if attempt.t <= end]
    renewed = any(tried and tried[-1].t < moment <= end for moment in case.demands.renewals())
    if tried and tried[-1].did != "taken" and not renewed:
        return None  # it was repeated as often as it may be
    hands = [panel.t for panel in case.record.panels.get(case.key(column), ()) if panel.t <= begin]
    if hands and not any(attempt.t > hands[-1] for attempt in case.attempts(column) if attempt.t <= end):
        return None  # what the box does not look at, it does not know
    return begin


def time_needed(case, column, begin, held, value, jumps):
    """How long it may take; None: it depends on another output."""
    contract, needs = case.contract, case.allowance.bound
    if jumps:
        return needs
    pace = contract.rate[1] / contract.rate[0] if contract.rate else 0
    if contract.rate:
        needs += contract.rate[1] + pace
    if column in contract.slew and held is not None:
        steps = math.ceil(abs(value - held) / contract.step(column)) + 1
        needs += steps * max(contract.slew_every, pace)
    if isinstance(value, bool) and held != value:
        least = contract.min_off if value else contract.min_on
        changes = [attempt.t for attempt in case.attempts(column) if attempt.t <= begin and attempt.applied]
        needs += max(0.0, max(changes, default=-least) + least - begin)
    if contract.never_with and value:
        return None
    return needs
