"""What outputs promise: the contracts of a tidegate.toml, as docs/outputs.md describes them."""

import re
import tomllib
from dataclasses import dataclass, field

from condition import Condition

FOREVER = float("inf")

SECONDS = {"ms": 0.001, "s": 1, "min": 60, "h": 3600, "d": 86400}


def duration(text):
    """Seconds of "250ms", "2h"; "never" is for ever."""
    if text == "never":
        return FOREVER
    number, unit = re.fullmatch(r"([0-9.]+)(ms|s|min|h|d)", text).groups()
    return float(number) * SECONDS[unit]


def rate(text):
    """How much in which time: "5/s" is (5, 1)."""
    number, unit = re.fullmatch(r"([0-9.]+)/(ms|s|min|h|d)", text).groups()
    return float(number), SECONDS[unit]


@dataclass
class Interlock:
    """A condition, and where the output goes while it does not hold."""

    name: str
    when: Condition
    max_age: float
    trip: dict
    clear_after: float = 0.0
    latch: bool = False
    ramp: bool = False


@dataclass
class Contract:
    """Lengths of time are seconds."""

    expiry: float
    failsafe: object
    failsafe_after: float = 0.0
    kind: str = "state"
    max_input_age: object = None
    tie: str | None = None
    range: dict = field(default_factory=dict)
    out_of_range: str = "clamp"
    interlocks: list = field(default_factory=list)
    never_with: list = field(default_factory=list)
    dead_time: float = 0.0
    min_on: float = 0.0
    min_off: float = 0.0
    slew: dict = field(default_factory=dict)
    slew_every: float = 0.5
    deadband: dict = field(default_factory=dict)
    rate: tuple | None = None
    read_back: dict | None = None
    retries: int = 1
    retry_after: float = 1.0
    refresh: float | None = None
    startup: str = "wait"
    startup_grace: float = 30.0
    on_stop: object = None

    def age_limit(self, stream):
        """How old the newest row of a stream may be."""
        if isinstance(self.max_input_age, dict):
            return duration(self.max_input_age.get(stream, "never"))
        return FOREVER if self.max_input_age is None else duration(self.max_input_age)

    def failsafe_of(self, column):
        """The value, or None where it stays or nothing is written."""
        return self.failsafe.get(column) if isinstance(self.failsafe, dict) else None

    def clamped(self, column, value):
        """The nearest value within the range."""
        if column not in self.range or isinstance(value, bool):
            return value
        low, high = self.range[column]
        return min(max(value, low), high)

    def step(self, column):
        """The most that one step of a ramp may be."""
        amount, unit = self.slew[column]
        return amount / unit * self.slew_every


@dataclass
class Output:
    """An output with a contract. `points` is None where it is a topic."""

    name: str
    connection: str
    contract: Contract
    unit: int = 1
    points: dict | None = None
    topic: str | None = None
    payload: str | None = None
    key: list = field(default_factory=list)

    def is_switch(self, column):
        """Whether the column is on or off."""
        point = (self.points or {}).get(column)
        return point is not None and ("coil" in point or "bit" in point or point.get("type") == "bool")

    def quantum(self, column):
        """How far what is on the wire may be from what was meant."""
        point = (self.points or {}).get(column, {})
        whole = "holding" in point and "float" not in point["type"]
        return abs(point.get("scale", 1)) * 0.501 if whole else 1e-3


def interlock(table, contract_failsafe):
    """One table of `interlock`."""
    failsafe = contract_failsafe if isinstance(contract_failsafe, dict) else {}
    return Interlock(
        name=table.get("name", table["when"]),
        when=Condition(table["when"]),
        max_age=duration(table["max_age"]),
        trip={**failsafe, **table.get("trip", {})},
        clear_after=duration(table.get("clear_after", "0s")),
        latch=table.get("latch", False),
        ramp=table.get("trip_ramp", False),
    )


def contract(table):
    """One `contract` table."""
    interlocks = table.get("interlock", [])
    taken = {name: table[name] for name in (
        "failsafe", "kind", "max_input_age", "tie", "range", "out_of_range", "never_with", "deadband",
        "read_back", "retries", "startup",
    ) if name in table}
    taken |= {name: duration(table[name]) for name in (
        "expiry", "failsafe_after", "dead_time", "min_on", "min_off", "slew_every", "retry_after", "refresh",
        "startup_grace",
    ) if name in table}
    made = Contract(**taken)
    made.slew = {column: rate(text) for column, text in table.get("slew", {}).items()}
    made.rate = rate(table["rate"]) if "rate" in table else None
    tables = interlocks if isinstance(interlocks, list) else [interlocks]
    made.interlocks = [interlock(table, made.failsafe) for table in tables]
    made.on_stop = table.get("on_stop", "failsafe" if isinstance(made.failsafe, dict) else made.failsafe)
    return made


def outputs(text):
    """The outputs of a configuration that have a contract, by name."""
    found = {}
    for name, table in tomllib.loads(text).get("outputs", {}).items():
        terms = table.get("contract", "none")
        if terms == "none":
            continue
        topic = table.get("topic")
        found[name] = Output(
            name, table["connection"], contract(terms), table.get("unit", 1), table.get("fields"), topic,
            table.get("payload"), terms.get("key", re.findall(r"\{(\w+)\}", topic or "")),
        )
    for output in found.values():  # it holds in both directions, named in one of them
        for other in output.contract.never_with:
            if other in found and output.name not in found[other].contract.never_with:
                found[other].contract.never_with.append(output.name)
    return found
