"""What is on the wire, as values of columns."""

import json
import re
import struct

WORDS = {"int16": 1, "uint16": 1, "int32": 2, "uint32": 2, "float32": 2, "float64": 4, "bool": 1}
CODES = {"int16": "h", "uint16": "H", "int32": "i", "uint32": "I", "float32": "f", "float64": "d"}


def of_registers(point, words):
    """The value of a holding register's point; the order is ABCD."""
    if "bit" in point:
        return bool(words[0] >> point["bit"] & 1)
    if point["type"] == "bool":
        return words[0] != 0
    value = struct.unpack(">" + CODES[point["type"]], struct.pack(f">{len(words)}H", *words))[0]
    return value * point.get("scale", 1) + point.get("offset", 0)


def of_request(points, table, address, values):
    """The columns that a request to write `values` from `address` on in "coil" or "holding" writes whole."""
    found = {}
    for column, point in points.items():
        if table not in point:
            continue
        length = 1 if table == "coil" or "bit" in point else WORDS[point["type"]]
        first = point[table] - address
        if 0 <= first and first + length <= len(values):
            content = values[first:first + length]
            found[column] = bool(content[0]) if table == "coil" else of_registers(point, content)
    return found


def of_message(output, topic, payload):
    """The instance and the columns of a message, or None if the topic is another's."""
    names = re.findall(r"\{(\w+)\}", output.topic)
    found = re.fullmatch(re.sub(r"\\\{\w+\\\}", "([^/]+)", re.escape(output.topic)), topic)
    if found is None:
        return None
    key = dict(zip(names, found.groups(), strict=True))
    if output.payload is None:
        columns = json.loads(payload)
        key |= {name: str(columns[name]) for name in output.key if name in columns}
        columns = {name: value for name, value in columns.items() if name not in output.key}
    else:
        pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>.*)", re.escape(output.payload))
        found = re.fullmatch(pattern, payload).groupdict()
        columns = {name: json.loads(text) for name, text in found.items()}
    return instance(key, output.key), columns


def instance(values, key):
    """What `line=7` is called; empty without a key."""
    return ",".join(f"{name}={values[name]}" for name in key)
