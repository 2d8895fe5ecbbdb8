"""Records that are made by hand, to try the oracle on."""

import json

from case import Allowance
from judge import judge

CONFIG = """
[outputs.pump]
connection = "plc"
fields = {{ run = {{ coil = 5 }}, speed = {{ holding = 40, type = "uint16", scale = 0.1 }} }}
[outputs.pump.contract]
expiry = "{expiry}"
failsafe = {failsafe}
{terms}
"""
RULE = {
    "name": "follow", "output": "pump", "stream": "want", "reads": ["want"],
    "columns": {"run": "run", "speed": "speed"},
}


class Story:
    """Times are in seconds; each call writes an event down."""

    def __init__(
        self, terms="", expiry="30s", failsafe="{ run = false, speed = 0 }", config=CONFIG, rule=RULE,
    ):
        self.config = config.format(terms=terms, expiry=expiry, failsafe=failsafe)
        self.events = []
        self.at(0, "start")
        if rule:
            self.at(0, "rule", **rule)

    def at(self, t, what, until=None, **more):
        """Any event."""
        self.events.append({"t": round(t * 1e9), "what": what, "until": round((until or t) * 1e9), **more})
        return self

    def row(self, t, age=0, stream="want", **row):
        """A row is given to the box."""
        return self.at(t, "row", stream=stream, row=row, age=age)

    def wants(self, t, *values):
        """Rows for one speed each, a tenth of a second apart."""
        for index, value in enumerate(values):
            self.row(t + index / 10, speed=value)
        return self

    def write(self, t, table, address, value, did="taken", connection="plc"):
        """A request."""
        applied = did in ("taken", "silent")
        answered = None if did in ("silent", "lost") else t + 0.001
        return self.at(
            t, "write", connection=connection, unit=1, table=table, address=address, values=[value], did=did,
            applied=applied, answered=answered and round(answered * 1e9))

    def run(self, t, value, did="taken"):
        """The coil of the pump is written."""
        return self.write(t, "coil", 5, int(value), did)

    def speed(self, t, value, did="taken"):
        """The register of the pump is written."""
        return self.write(t, "holding", 40, round(value * 10), did)

    def line(self, t, up):
        """The line to the device."""
        return self.at(t, "line", connection="plc", up=up)

    def verdict(self, until, **allowance):
        """What the oracle says; nobody looked after `until`."""
        self.at(until, "end")
        lines = [json.dumps(event) for event in self.events]
        return judge(self.config, lines, Allowance(**{"bound": 1.0, **allowance}))

    def faults(self, until, **allowance):
        """The clauses that were broken."""
        return sorted({fault.clause for fault in self.verdict(until, **allowance).faults})
