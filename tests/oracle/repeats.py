"""What became of a write decides whether it is sent again: retries, pulses, refresh."""

NOBODY_KNOWS = ("silent", "lost")


def retries(case):
    """A write that failed is repeated so often and no oftener, unless somebody claims anew."""
    for column in case.columns:
        count = 0
        for before, attempt in zip(case.attempts(column), case.attempts(column)[1:]):
            if case.contract.kind == "event" or before.did == "taken" or (
                attempt.value != before.value or renewed(case, before.t, attempt.t)
                or case.broken_between(before.t, attempt.t)
            ):
                count = 0
                continue
            count += 1
            case.verdict.look("retries")
            most = case.contract.retries if before.did != "ignored" else (
                (case.contract.read_back or {}).get("retries", 1))
            if count > most:
                said = f"repeat {count} of {attempt.value}; {most} are allowed"
                case.fault("retries", column, attempt.t, said)
            elif before.did in NOBODY_KNOWS and (
                attempt.t - before.t < case.contract.retry_after - case.allowance.slack
            ):
                case.fault("retries", column, attempt.t, (
                    f"repeated after {attempt.t - before.t:.3f} s, "
                    f"and not after {case.contract.retry_after:g} s"))


def renewed(case, begin, end):
    """Whether a claim or a person may have come between."""
    return any(begin < moment <= end for moment in case.demands.renewals())


def pulses(case):
    """Of an output for events, each row is written once at most, and nothing without a row."""
    if case.contract.kind != "event":
        return
    for column in case.columns:
        claims = sorted(
            [a, b, values[column]] for _, of_rule in case.demands.claims.values()
            for a, b, values, _ in of_rule if values.get(column) is not None)
        for attempt in case.attempts(column):
            case.verdict.look("pulses")
            row = next((claim for claim in claims if claim[0] <= attempt.t <= claim[1] + case.contract.expiry
                        + case.allowance.latency and case.same(column, claim[2], attempt.value)), None)
            if row is None:
                said = f"{attempt.value} is written, and no row is left that asked"
                case.fault("pulses", column, attempt.t, said)
            else:
                claims.remove(row)


def refreshes(case):
    """While there is a claim, the value is sent again so often."""
    every = case.contract.refresh
    if every is None:
        return
    for column in case.columns:
        times = [attempt.t for attempt in case.attempts(column)] + [case.record.end]
        for begin, end in zip(times, times[1:]):
            if case.record.disturbed(case.output.connection, begin, end) is not None or not (
                case.demands.claimed(column, begin + case.allowance.latency, end)
            ):
                continue
            case.verdict.look("refresh")
            if end - begin > every + case.allowance.bound:
                said = f"nothing for {end - begin:.3f} s; each {every:g} s is promised"
                case.fault("refresh", column, end, said)
