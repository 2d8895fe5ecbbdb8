"""Outputs that exclude each other are never both on: one goes on after the other is confirmed off."""


def on(case, values):
    """Whether an output is on, by the values of its columns."""
    switches = [value for value in values.values() if isinstance(value, bool)]
    return any(switches) if switches else any(value for value in values.values())


def moves(case):
    """(when, whether it may be on from then on, the request) of each request, in order."""
    values, found = {}, []
    every = sorted(
        ((attempt.t, column, attempt) for column in case.columns for attempt in case.attempts(column)),
        key=lambda move: move[0])
    for t, column, attempt in every:
        was = on(case, values)
        if attempt.applied:
            values[column] = attempt.value
        found.append((t, was, on(case, {**values, column: attempt.value}), on(case, values), attempt))
    return found


def never_both(cases):
    """`cases`: by output, those of one instance."""
    for case in cases.values():
        for other in case.contract.never_with:
            if other in cases:
                judge(case, cases[other])


def judge(case, other):
    """Each request that has `case` on, while `other` .."""
    others = moves(other)
    for t, was, wanted, _, attempt in moves(case):
        if was or not wanted:
            continue
        case.verdict.look("never both")
        before = [move for move in others if move[0] <= t]
        if before and before[-1][3]:
            case.fault("never both", None, t, f"it goes on while {other.output.name} is on")
            continue
        confirmed = confirmation(other, before, t)
        if confirmed is None:
            case.fault("never both", None, t, (
                f"it goes on, and nothing has confirmed that {other.output.name} is off"))
        elif t - confirmed < case.contract.dead_time - case.allowance.slack:
            case.fault("never both", None, t, (
                f"it goes on {t - confirmed:.3f} s after {other.output.name} was confirmed off; "
                f"dead time is {case.contract.dead_time:g} s"))


def confirmation(other, before, t):
    """Since when the device has confirmed that `other` is off; None: at `t` it has not."""
    breaks = other.record.breaks(other.output.connection)
    since = None
    for _, _, wanted, _, attempt in before:
        if wanted or attempt.did != "taken" or attempt.answered is None:
            since = None
        elif since is None or any(since < moment <= attempt.t for moment in breaks):
            since = attempt.answered
    return None if since is None or since > t or any(since < moment <= t for moment in breaks) else since
