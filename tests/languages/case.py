"""What the programs beside the cases share: recorded rows come in, rows are written.

In a case: PYTHONPATH=.. python3 expected.py > expected.jsonl
"""

import datetime
import heapq
import json
import pathlib

SECOND = 1_000_000_000


def rows():
    """All rows, each with its stream, in the order in which they come. What a row lacks is None."""
    files = sorted(pathlib.Path().glob("rows*.jsonl"))
    yield from heapq.merge(*map(recorded, files), key=lambda row: nanoseconds(row["ts"]))


def recorded(file):
    stream = file.stem.partition(".")[2] or "tank"
    for line in file.read_text().splitlines():
        yield Row(json.loads(line), stream=stream)


class Row(dict):
    def __missing__(self, column):
        return None


def write(target, **row):
    """Writes a row: its time first, the other columns by name."""
    row = dict(sorted(row.items(), key=lambda column: (column[0] != "ts", column[0])))
    print(json.dumps({"target": target, "row": row}, separators=(",", ":"), ensure_ascii=False))


def nanoseconds(text):
    """Since 1970."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    time = datetime.datetime.fromisoformat(whole + "+00:00")
    return int(time.timestamp()) * SECOND + int(fraction.ljust(9, "0"))


def text(nanoseconds):
    """Of a time since 1970; fractions have 3, 6 or 9 digits."""
    seconds, fraction = divmod(nanoseconds, SECOND)
    digits = f"{fraction:09}"
    while digits.endswith("000"):
        digits = digits.removesuffix("000")
    whole = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
    return whole + (f".{digits}" if digits else "") + "Z"
