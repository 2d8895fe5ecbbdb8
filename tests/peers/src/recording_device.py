"""A Modbus device by pymodbus that writes down each request to write, and misbehaves as it is told.

    recording_device.py CONNECTION UNIT..

All coils are off and all registers 0 at the beginning. It prints its port, and from then on the record that
tests/oracle/record.py describes: `write`, `panel`, `line` and `fault`, an object a line, with `connection`
and `t`, the monotonic clock in nanoseconds. It takes orders, an object a line, and prints the `id` of each as
`told` when it is done:

    {"do": "misbehave", "how": HOW}   each write from now on; with `unit`, `table` and `address` those to one
                                      place, with `times` so many. HOW is
        refuse     exception `code` (4 if nothing is said)
        ignore     it says yes, and does nothing
        silent     it does it, and says nothing
        lost       it does nothing, and says nothing
        late       it does it, and answers after `seconds`; where that is soon enough, `did` is "taken"
    {"do": "behave"}                  as a device should
    {"do": "panel", "unit": 1, "table": "coil", "address": 5, "values": [1]}   somebody else writes
    {"do": "hang_up"}                 closes its connections, and takes new ones
    {"do": "deafen"}, {"do": "listen"}   takes none meanwhile
    {"do": "note", "event": {..}}     puts an event into the record; it ends now, and began at its `t` or now
    {"do": "tell_the_time"}           `told` has it

It ends with its input.
"""

import asyncio
import json
import socket
import sys
import time

from pymodbus.constants import ExcCodes
from pymodbus.pdu import ExceptionResponse
from pymodbus.server import ModbusTcpServer
from pymodbus.server.requesthandler import ServerRequestHandler
from pymodbus.simulator import DataType, SimData, SimDevice

CONNECTION, *UNITS = sys.argv[1:]
COILS = {5: "bits", 15: "bits"}
REGISTERS = {6: "registers", 16: "registers", 23: "write_registers"}
PANEL = {"coil": 15, "holding": 16}


def tell(what, t=None, **more):
    """Prints what happened."""
    event = {"t": t or time.monotonic_ns(), "what": what, "connection": CONNECTION, **more}
    print(json.dumps(event), flush=True)


class Misbehaviour:
    """What it does not do as it should, and how often yet."""

    def __init__(self):
        self.orders, self.was = [], False

    def add(self, order):
        """From now on."""
        self.orders.append({"times": None, **order})
        self.say()

    def end(self):
        """It behaves."""
        self.orders = []
        self.say()

    def say(self):
        """Tells of a change."""
        if bool(self.orders) != self.was:
            self.was = bool(self.orders)
            tell("fault", on=self.was)

    def of(self, unit, table, address):
        """The order that says what becomes of this write, if one does."""
        for order in self.orders:
            place = {"unit": unit, "table": table, "address": address}
            if all(order.get(name, value) == value for name, value in place.items()):
                if order["times"] is not None:
                    order["times"] -= 1
                    if order["times"] == 0:
                        self.orders.remove(order)
                return order
        return None


class Handler(ServerRequestHandler):
    """A connection. pymodbus answers; what it is asked to write passes by here."""

    async def handle_request(self):
        """Of pymodbus' own, which does not know which request it answers when it answers late."""
        asked, self.last_pdu = self.last_pdu, None
        if asked is None:
            return
        t, device = time.monotonic_ns(), self.server
        if asked.dev_id not in device.units:
            return
        written = content(asked, device)
        order = written and device.misbehaviour.of(asked.dev_id, written["table"], written["address"])
        how = order["how"] if order else "take"
        kept = device.image(asked.dev_id)
        if how == "refuse":
            answer = ExceptionResponse(asked.function_code, ExcCodes(order.get("code", 4)))
        else:
            answer = await asked.datastore_update(device.context, asked.dev_id)
        refused = isinstance(answer, ExceptionResponse)
        if how in ("ignore", "lost"):
            device.restore(asked.dev_id, kept)
        if how == "late":
            await asyncio.sleep(order["seconds"])
        if how not in ("silent", "lost"):
            answer.transaction_id, answer.dev_id = asked.transaction_id, asked.dev_id
            self.server_send(answer, None)
        if written:
            late = (order or {}).get("did", "silent")
            did = {"take": "taken", "ignore": "ignored", "late": late}.get(how, how)
            answered = None if how in ("silent", "lost") else time.monotonic_ns()
            applied = not refused and how not in ("ignore", "lost")
            did = "refused" if refused else did
            tell("write", t, answered=answered, unit=asked.dev_id, did=did, applied=applied, **written)
            device.misbehaviour.say()


def content(asked, device):
    """What a request writes; None: it reads."""
    function = asked.function_code
    if function in COILS:
        values = [int(bit) for bit in asked.bits[:asked.count if function == 15 else 1]]
        return {"function": function, "table": "coil", "address": asked.address, "values": values}
    if function in REGISTERS:
        address = asked.write_address if function == 23 else asked.address
        values = list(getattr(asked, REGISTERS[function]))
        return {"function": function, "table": "holding", "address": address, "values": values}
    if function == 22:
        held = device.register(asked.dev_id, asked.address)
        value = held & asked.and_mask | asked.or_mask & ~asked.and_mask & 0xFFFF
        return {"function": function, "table": "holding", "address": asked.address, "values": [value]}
    return None


class Device(ModbusTcpServer):
    """Coils and registers of some units."""

    def __init__(self, units, port):
        self.units = units
        self.misbehaviour = Misbehaviour()
        devices = [unit(number) for number in units]
        super().__init__(devices, address=("127.0.0.1", port), trace_connect=self.line)

    def callback_new_connection(self):
        return Handler(self, self.trace_packet, self.trace_pdu, self.trace_connect)

    def line(self, up):
        """Somebody has connected, or is gone."""
        tell("line", up=up)

    def blocks(self, number):
        """The memory of a unit: coils, discrete inputs, holding and input registers."""
        return self.context.devices[number].block

    def image(self, number):
        """A copy of it."""
        return {name: list(block[2]) for name, block in self.blocks(number).items()}

    def restore(self, number, image):
        """As it was."""
        for name, block in self.blocks(number).items():
            block[2][:] = image[name]

    def register(self, number, address):
        """What a holding register holds."""
        return self.blocks(number)["h"][2][address]


def unit(number):
    """All off, all 0."""
    bits = lambda: [SimData(0, values=[False] * 128, datatype=DataType.BITS)]
    registers = lambda: [SimData(0, values=[0] * 128, datatype=DataType.REGISTERS)]
    return SimDevice(id=number, simdata=(bits(), bits(), registers(), registers()))


async def obey(device, order):
    """One order."""
    match order["do"]:
        case "misbehave":
            device.misbehaviour.add(order)
        case "behave":
            device.misbehaviour.end()
        case "panel":
            place = (order["unit"], PANEL[order["table"]], order["address"], order["values"])
            await device.context.async_setValues(*place)
            tell("panel", **{name: order[name] for name in ("unit", "table", "address", "values")})
        case "hang_up":
            for connection in list(device.active_connections.values()):
                connection.transport.abort()
        case "deafen":
            await device.shutdown()
            tell("line", up=False)
        case "listen":
            await device.listen()
        case "note":
            event = {"t": time.monotonic_ns(), "until": time.monotonic_ns(), **order["event"]}
            tell(event.pop("what"), event.pop("t"), **event)
        case "tell_the_time":
            pass
        case other:
            raise ValueError(f"there is no order {other!r}")


async def main():
    """Serves until the input ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    device = Device([int(number) for number in UNITS], port)
    await device.serve_forever(background=True)
    print(json.dumps({"port": port}), flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order = json.loads(line)
        await obey(device, order)
        tell("told", id=order["id"])
    await device.shutdown()


asyncio.run(main())
