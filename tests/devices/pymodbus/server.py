"""A device by pymodbus, with the registers that tests expect: units 1 and 2, and 9, which never answers.

    server.py tcp           Modbus TCP on a free port, which it prints
    server.py rtu           RTU over TCP, likewise
    server.py serial PATH   RTU on a serial port
    server.py bare          Modbus TCP, without functions 22 and 23, which it refuses

It prints each write: unit, function code, address, values. It ends with its input.
"""

import asyncio
import functools
import socket
import sys

from pymodbus import FramerType, ModbusDeviceIdentification
from pymodbus.client.mixin import ModbusClientMixin
from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

TYPE = ModbusClientMixin.DATATYPE


def registers(value, datatype, word_order="big"):
    """As pymodbus has it."""
    return ModbusClientMixin.convert_to_registers(value, datatype, word_order=word_order)


def holding():
    """Values of every type, where a test looks for them."""
    image = [(1000 + address) for address in range(200)]
    for address, words in {
        0: registers(-1234, TYPE.INT16),
        2: registers(-123456789, TYPE.INT32),
        4: registers(4000000000, TYPE.UINT32),
        6: registers(-1234567890123456789, TYPE.INT64),
        10: registers(3.25, TYPE.FLOAT32),
        12: registers(-2.5, TYPE.FLOAT32, "little"),
        14: registers(6.0221e23, TYPE.FLOAT64),
        18: registers(6.0221e23, TYPE.FLOAT64, "little"),
        22: registers("pressure", TYPE.STRING),
        30: [0b1000],
    }.items():
        image[address:address + len(words)] = words
    return image


async def action(unit, lacks, function, _start, address, _count, _registers, values):
    """Refuses what the device lacks, and prints what is written."""
    if unit == 9:
        await asyncio.Event().wait()
    if function in lacks:
        return ExcCodes.ILLEGAL_FUNCTION
    if values is not None:
        print("write", unit, function, address, *[int(value) for value in values], flush=True)
    return None


def device(unit, lacks):
    """Coils, discrete inputs, holding and input registers."""
    return SimDevice(
        id=unit,
        simdata=(
            [SimData(0, values=[address % 3 == 0 for address in range(64)], datatype=DataType.BITS)],
            [SimData(0, values=[address % 2 == 1 for address in range(64)], datatype=DataType.BITS)],
            [SimData(0, values=holding(), datatype=DataType.REGISTERS)],
            [SimData(0, values=[100 * unit + address for address in range(200)], datatype=DataType.REGISTERS)],
        ),
        action=functools.partial(action, unit, lacks),
    )


async def main():
    """Serves until the input ends."""
    kind = sys.argv[1]
    lacks = (22, 23) if kind == "bare" else ()
    devices = [device(unit, lacks) for unit in (1, 2, 9)]
    identity = ModbusDeviceIdentification(info_name={
        "VendorName": "ACME", "ProductCode": "T1", "MajorMinorRevision": "2.0",
    })
    common = {"identity": identity, "ignore_missing_devices": True}
    if kind == "serial":
        server = ModbusSerialServer(devices, port=sys.argv[2], baudrate=115200, **common)
        await server.serve_forever(background=True)
        print("ready", flush=True)
    else:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        framer = FramerType.RTU if kind == "rtu" else FramerType.SOCKET
        server = ModbusTcpServer(devices, address=("127.0.0.1", port), framer=framer, **common)
        await server.serve_forever(background=True)
        print(f"port {port}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.shutdown()


asyncio.run(main())
