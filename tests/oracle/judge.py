"""Judges a record of the wire by the contracts of a configuration, and knows nothing else.

    judge.py tidegate.toml record.jsonl [--bound SECONDS] [--latency SECONDS] [--slack SECONDS] [--json]

Exit code 1: something was not as promised; each of that is a line.
"""

import argparse
import json
import sys
from dataclasses import asdict

import limits
import pairs
import repeats
import wants
from case import Allowance, Case, Verdict
from contract import outputs
from record import Record

CLAUSES = (
    limits.in_range, limits.slews, limits.minimum_times, limits.deadbands, limits.rates,
    wants.wanted, wants.reached, repeats.retries, repeats.pulses, repeats.refreshes,
)


def judge(config, lines, allowance=None):
    """The verdict on lines of a record."""
    allowance, verdict = allowance or Allowance(), Verdict()
    promised = outputs(config)
    record = Record(lines, promised, allowance.hop)
    by_instance = {}
    for name, output in promised.items():
        for instance in sorted(record.instances[name]):
            case = Case(record, output, instance, allowance, verdict)
            by_instance.setdefault(instance, {})[name] = case
            for clause in CLAUSES:
                clause(case)
    for cases in by_instance.values():
        pairs.never_both(cases)
    verdict.faults.sort(key=lambda fault: fault.t)
    return verdict


def main():
    """The command."""
    parser = argparse.ArgumentParser(description="Judges a record of the wire by contracts of outputs.")
    parser.add_argument("config")
    parser.add_argument("record")
    for name in ("hop", "latency", "slack", "bound"):
        parser.add_argument(f"--{name}", type=float, default=getattr(Allowance(), name))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with open(args.config, encoding="utf-8") as config, open(args.record, encoding="utf-8") as record:
        verdict = judge(config.read(), record, Allowance(args.hop, args.latency, args.slack, args.bound))
    if args.json:
        print(json.dumps(asdict(verdict)))
    else:
        for fault in verdict.faults:
            print(fault)
        looked = ", ".join(f"{name} {count}" for name, count in sorted(verdict.judged.items()))
        print("looked at:", looked or "nothing")
    return 1 if verdict.faults else 0


if __name__ == "__main__":
    sys.exit(main())
