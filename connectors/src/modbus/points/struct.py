"""Numbers as Python's struct has them: lines of type, order, registers in hexadecimal, value, for a test to compare.

Values are written as repr writes them; a float's is exact.
"""

import random
import struct

random.seed(1)
TYPES = {
    "int16": ("h", 2), "uint16": ("H", 2), "int32": ("i", 4), "uint32": ("I", 4),
    "int64": ("q", 8), "uint64": ("Q", 8), "float16": ("e", 2), "float32": ("f", 4), "float64": ("d", 8),
}
ORDERS = {2: ["AB", "BA"], 4: ["ABCD", "CDAB", "BADC", "DCBA"], 8: ["ABCDEFGH", "GHEFCDAB", "BADCFEHG", "HGFEDCBA"]}


def content(code, size):
    """Some value of a type, often one at the edge."""
    if code in "efd":
        bits = random.choice([random.getrandbits(8 * size), 0, 1, 1 << (8 * size - 1)])
        return struct.unpack(">" + code, bits.to_bytes(size, "big"))[0]
    signed = code.islower()
    least, most = (-(1 << (8 * size - 1)), (1 << (8 * size - 1)) - 1) if signed else (0, (1 << 8 * size) - 1)
    if code == "Q":
        most = (1 << 63) - 1  # what a column of int64 can hold
    return random.choice([random.randint(least, most), least, most, 0, 1])


for name, (code, size) in TYPES.items():
    for _ in range(200):
        value = content(code, size)
        if value != value or value in (float("inf"), float("-inf")):
            continue
        packed = struct.pack(">" + code, value)
        order = random.choice(ORDERS[size])
        # A letter names a byte of the value, A being the highest; they go over the wire as they stand.
        wire = bytes(packed["ABCDEFGH".index(letter)] for letter in order)
        print(name, order, wire.hex(), repr(value))
