"""How far, how fast and how often: range, slew, minimum times, deadband, rate."""

import math

from demand import HOLD


def in_range(case):
    """No request is outside of the range."""
    for column, (low, high) in case.contract.range.items():
        margin = case.output.quantum(column)
        for attempt in case.attempts(column):
            case.verdict.look("range")
            if not low - margin <= attempt.value <= high + margin:
                case.fault("range", column, attempt.t, f"{attempt.value:g} is outside of {low:g} to {high:g}")


def runs(case, column):
    """Requests that follow each other, with nothing between that makes the state unknown or passes limits."""
    run = []
    for attempt in case.attempts(column):
        if run and (
            case.broken_between(run[-1].t, attempt.t) or run[-1].did != "taken"
            or case.hand_between(column, run[-1].t, attempt.t)
        ):
            yield run
            run = []
        if case.is_trip(column, attempt) or case.stops(attempt.t):
            if run:
                yield run
            run = [attempt]
        else:
            run.append(attempt)
    if run:
        yield run


def slews(case):
    """Each step is within a step, and all of them together within the rate."""
    for column, (amount, unit) in case.contract.slew.items():
        step, margin, last = case.contract.step(column), 2 * case.output.quantum(column), None
        for run in runs(case, column):
            first(case, column, run[0], step + margin, last)
            last = run[-1]
            for index, attempt in enumerate(run[1:], 1):
                case.verdict.look("slew")
                before = run[index - 1]
                if abs(attempt.value - before.value) > step + margin:
                    case.fault("slew", column, attempt.t, (
                        f"{before.value:g} -> {attempt.value:g} in one step; "
                        f"{amount:g} in {unit:g} s allow {step:g}"))
                    continue
                for earlier in run[:index]:
                    span = attempt.t - earlier.t + case.contract.slew_every + case.allowance.slack
                    if abs(attempt.value - earlier.value) > amount / unit * span + margin:
                        case.fault("slew", column, attempt.t, (
                            f"{earlier.value:g} -> {attempt.value:g} in {attempt.t - earlier.t:.3f} s; "
                            f"{amount:g} in {unit:g} s is the most"))
                        break


def first(case, column, attempt, most, last):
    """After an unknown state it goes on from what the device holds, or from failsafe; where a hand came
    between, nobody has told the box."""
    if case.is_trip(column, attempt) or case.stops(attempt.t):
        return
    case.verdict.look("slew")
    held = case.record.truth(case.key(column), attempt.t - 1e-6)
    starts = [value for value in (held, case.contract.failsafe_of(column)) if value is not None]
    if last is not None and case.hand_between(column, last.t, attempt.t):
        starts.append(last.value)
    if starts and all(abs(attempt.value - start) > most for start in starts):
        case.fault("slew", column, attempt.t, (
            f"it begins with {attempt.value:g}; the device held {held}, failsafe is "
            f"{case.contract.failsafe_of(column)}"))


def minimum_times(case):
    """What went on stays on for `min_on`, what went off stays off for `min_off`."""
    for column in case.columns:
        if not isinstance(case.record.truth(case.key(column), case.record.end), bool):
            continue
        before = None
        value = None
        for attempt in (attempt for attempt in case.attempts(column) if attempt.applied):
            held = case.record.truth(case.key(column), attempt.t - 1e-6) if value is None else value
            if attempt.value == held:
                continue
            value = attempt.value
            if before is not None and not case.is_trip(column, attempt) and not case.stops(attempt.t):
                least = case.contract.min_off if value else case.contract.min_on
                case.verdict.look("minimum times", 1 if least else 0)
                if attempt.t - before < least - case.allowance.slack:
                    case.fault("minimum times", column, attempt.t, (
                        f"{'on' if value else 'off'} {attempt.t - before:.3f} s after "
                        f"{'off' if value else 'on'}; at least {least:g} s are promised"))
            before = attempt.t


def deadbands(case):
    """Nothing is written that changes too little, nor what is there already."""
    if case.contract.kind == "event":
        return
    for column in case.columns:
        band = case.contract.deadband.get(column, 0)
        for before, attempt in zip(case.attempts(column), case.attempts(column)[1:]):
            if before.did != "taken" or case.contract.refresh is not None or (
                case.broken_between(before.t, attempt.t) or case.hand_between(column, before.t, attempt.t)
                or case.stops(attempt.t) or failed_between(case, before.t, attempt.t)
            ):
                continue
            case.verdict.look("deadband")
            ends = [*case.contract.range.get(column, ()), case.contract.failsafe_of(column)]
            ends += case.trip_values(column, attempt.t)
            if any(end is not None and case.same(column, attempt.value, end) for end in ends) and (
                attempt.value != before.value or turned(case, column, before, attempt)
            ):
                continue
            if attempt.value == before.value:
                case.fault("deadband", column, attempt.t, f"{attempt.value} is written again")
            elif not isinstance(attempt.value, bool) and abs(attempt.value - before.value) <= (
                band - case.output.quantum(column)
            ) and not ends_ramp(case, column, before):
                case.fault("deadband", column, attempt.t, (
                    f"{before.value:g} -> {attempt.value:g}, and changes up to {band:g} are not sent"))


def failed_between(case, begin, end):
    """Whether a write of any column was not taken: they may have gone out as one."""
    begin -= case.allowance.latency
    return any(
        attempt.did != "taken" and begin <= attempt.t <= end
        for column in case.columns for attempt in case.attempts(column))


def turned(case, column, before, attempt):
    """Whether something else may have been wanted meanwhile."""
    wanted = case.demands.within(column, before.t - case.allowance.latency, attempt.t)
    return len(wanted | set(case.trip_values(column, attempt.t))) > 1


def ends_ramp(case, column, before):
    """Whether the request before was a step on the way."""
    if column not in case.contract.slew:
        return False
    wanted = case.demands.within(column, before.t - case.allowance.latency, before.t)
    goals = [case.contract.clamped(column, value) for value in wanted if value != HOLD]
    return not any(case.same(column, goal, before.value) for goal in goals)


def rates(case):
    """In no span of the unit more than so many. Columns that go out together are one."""
    if case.contract.rate is None:
        return
    most, unit = case.contract.rate
    every = sorted(
        (attempt.t, column, attempt) for column in case.columns for attempt in case.attempts(column)
        if not case.is_trip(column, attempt) and not case.stops(attempt.t))
    writes = []  # (when, columns)
    for t, column, attempt in every:
        if writes and t - writes[-1][0] < case.allowance.slack / 2 and column not in writes[-1][1]:
            writes[-1][1].add(column)
        else:
            writes.append((t, {column}))
    times = [t for t, _ in writes]
    for index, t in enumerate(times):
        case.verdict.look("rate")
        within = [other for other in times[:index + 1] if other > t - unit + case.allowance.slack]
        if len(within) > math.ceil(most):
            case.fault("rate", None, t, f"the {len(within)}th in {unit:g} s; {most:g} are the most")
