"""What cantools makes of DBC files, and python-can of frames, as JSON.

    oracle.py files FOLDER   what each file below FOLDER has, or why it is refused
    oracle.py random SEED    a database of random messages, random frames of it, and what they mean
    oracle.py lines SEED     random frames as python-can logs them, and writes them to a serial adapter
    oracle.py speed FILE     frames a second that cantools decodes: `MESSAGE HEX` a line of the input

Values are texts, as Python writes them, since JSON's numbers are not exact.
"""

import io
import json
import pathlib
import random
import sys
import time

import can
import cantools
from cantools.database import EncodeError

FACTORS = ["1", "1", "0.1", "0.01", "0.125", "2", "-1", "-0.25", "1.6667", "1E-007", "3"]
OFFSETS = ["0", "0", "-40", "100.5", "1"]
FD_LENGTHS = [12, 16, 20, 24, 32, 48, 64]


def described(signal):
    """One signal."""
    choices = signal.conversion.choices or {}
    return {
        "name": signal.name,
        "start": signal.start,
        "length": signal.length,
        "big": signal.byte_order == "big_endian",
        "signed": signal.is_signed,
        "float": signal.conversion.is_float,
        "scale": repr(float(signal.conversion.scale)),
        "offset": repr(float(signal.conversion.offset)),
        "unit": signal.unit or "",
        "labels": {str(content): str(label) for content, label in choices.items()},
        "multiplexor": signal.multiplexer_signal,
    }


def files(folder):
    """All files below the folder."""
    for path in sorted(pathlib.Path(folder).rglob("*.dbc")):
        try:
            database = cantools.database.load_file(path, strict=False)
        except Exception as error:  # whatever it is, it is refused
            print(json.dumps({"file": str(path), "refused": str(error)}))
            continue
        messages = [
            {
                "name": message.name,
                "id": message.frame_id,
                "extended": message.is_extended_frame,
                "length": message.length,
                "cycle": message.cycle_time,
                "signals": [described(signal) for signal in message.signals],
            }
            for message in database.messages
        ]
        print(json.dumps({"file": str(path), "messages": messages}))


def bits(start, width, big):
    """Which bits a signal has; none if they go round."""
    if not big:
        return set(range(start, start + width))
    at = start // 8 * 8 + 7 - start % 8
    return {place // 8 * 8 + 7 - place % 8 for place in range(at, at + width)}


class Writer:
    """Writes a random database."""

    def __init__(self, dice):
        self.dice, self.lines, self.more = dice, [], []

    def message(self, number):
        """One message, plain or multiplexed."""
        dice = self.dice
        is_extended, is_fd = dice.random() < 0.5, dice.random() < 0.4
        length = dice.choice(FD_LENGTHS) if is_fd else dice.randint(1, 8)
        identifier = dice.randrange(2**29) | 2**31 if is_extended else 3 * number
        self.lines.append(f"BO_ {identifier} Message{number}: {length} Sender")
        free = set(range(8 * length))
        names = iter(f"Signal{number}_{place}" for place in range(1000))
        if length >= 2 and dice.random() < 0.4:
            self.multiplexed(identifier, length, free, names)
        self.signals(identifier, length, free, names, dice.randint(1, 8), "")
        self.lines.append("")

    def multiplexed(self, identifier, length, free, names):
        """A multiplexor, and what it selects; some are in each other."""
        dice = self.dice
        outer = next(names)
        self.lines.append(f' SG_ {outer} M : 0|3@1+ (1,0) [0|0] "" Vector__XXX')
        free -= set(range(3))
        taken = set()
        values = list(range(8))
        dice.shuffle(values)
        is_nested = dice.random() < 0.5
        for branch in range(dice.randint(1, 3)):
            here = set(free)
            own = sorted(values.pop() for _ in range(dice.randint(1, 2))) if is_nested else [values.pop()]
            ranges = ", ".join(f"{value}-{value}" for value in own)
            if is_nested and branch == 0 and set(range(3, 6)) <= here:
                inner = next(names)
                self.lines.append(f' SG_ {inner} m{own[0]}M : 3|3@1+ (1,0) [0|0] "" Vector__XXX')
                self.more.append(f"SG_MUL_VAL_ {identifier} {inner} {outer} {ranges};")
                here -= set(range(3, 6))
                for first, last in [(0, 2), (3, 7)]:
                    inside = set(here)
                    added = self.signals(identifier, length, inside, names, 2, f"m{first}")
                    selects = f"{inner} {first}-{last};"
                    self.more += [f"SG_MUL_VAL_ {identifier} {name} {selects}" for name in added]
                    taken |= here - inside
                taken |= set(range(3, 6))
                continue
            added = self.signals(identifier, length, here, names, dice.randint(1, 4), f"m{own[0]}")
            if is_nested:
                self.more += [f"SG_MUL_VAL_ {identifier} {name} {outer} {ranges};" for name in added]
            taken |= free - here
        free -= taken

    def signals(self, identifier, length, free, names, count, multiplexing):
        """Signals where there is room; gives their names."""
        dice, added = self.dice, []
        for _ in range(30 * count):
            is_float = dice.random() < 0.1
            width = dice.choice([32, 64] if is_float else [1, dice.randint(2, 16), dice.randint(2, 64)])
            big, start = dice.random() < 0.5, dice.randrange(8 * length)
            wanted = bits(start, width, big)
            if not wanted <= free or len(added) == count:
                continue
            free -= wanted
            name = next(names)
            added.append(name)
            factor, offset = dice.choice(FACTORS), dice.choice(OFFSETS)
            if is_float or width > 40:
                factor, offset = "1", "0"
            sign = dice.choice("+-")
            span = "[0|0]"
            if not is_float and dice.random() < 0.3:
                span = self.span(width, sign, float(factor), float(offset))
            order = 0 if big else 1
            where = f"{start}|{width}@{order}{sign}"
            self.lines.append(f' SG_ {name} {multiplexing} : {where} ({factor},{offset}) {span} "unit" Sender')
            if is_float:
                self.more.append(f"SIG_VALTYPE_ {identifier} {name} : {1 if width == 32 else 2};")
            elif dice.random() < 0.3:
                contents = [content for content in (0, 1, 3, -1) if content >= 0 or sign == "-"]
                labels = " ".join(f'{content} "label {content}"' for content in contents)
                self.more.append(f"VAL_ {identifier} {name} {labels} ;")
        return added

    def span(self, width, sign, factor, offset):
        """A range that has the lesser half of what the bits hold."""
        raws = (-(2**(width - 1)) if sign == "-" else 0, 2**(width - 2) if width > 1 else 0)
        least, most = sorted(raw * factor + offset for raw in raws)
        return "[0|0]" if least == most == 0 else f"[{least!r}|{most!r}]"


def random_database(seed):
    """A database, frames, what they mean, and what is sent for that."""
    dice = random.Random(seed)
    writer = Writer(dice)
    for number in range(60):
        writer.message(number)
    text = 'VERSION ""\n\nBU_: Sender\n\n' + "\n".join(writer.lines + writer.more) + "\n"
    print(json.dumps({"text": text}))
    database = cantools.database.load_string(text, "dbc", strict=True)
    for message in database.messages:
        for _ in range(40):
            payload = dice.randbytes(message.length)
            try:
                raw = message.decode(payload, scaling=False, decode_choices=False)
            except cantools.database.DecodeError:
                continue  # no signal has this value of the multiplexor
            scaled = message.decode(payload, decode_choices=False)
            labelled = message.decode(payload)
            print(json.dumps({
                "message": message.name,
                "payload": payload.hex(),
                "raw": {name: repr(value) for name, value in raw.items()},
                "scaled": {name: repr(value) for name, value in scaled.items()},
                "labels": {
                    name: str(value)
                    for name, value in labelled.items()
                    if not isinstance(value, (int, float))
                },
                "sent": sent(message, scaled),
            }))


def sent(message, values):
    """The payload for the values; none: they are refused."""
    try:
        return message.encode(values, strict=True).hex()
    except EncodeError:
        return None


def lines(seed):
    """Random frames, and their lines."""
    dice = random.Random(seed)
    # What is written to this port is read from it.
    adapter = can.Bus(interface="slcan", channel="loop://", sleep_after_open=0)
    adapter.serialPortOrig.timeout = None
    for number in range(1000):
        adapter.serialPortOrig.reset_input_buffer()
        extended, kind = dice.random() < 0.5, dice.choice(["data", "fd", "remote"])
        length = dice.choice([*range(9), *FD_LENGTHS]) if kind == "fd" else dice.randint(0, 8)
        message = can.Message(
            timestamp=1_700_000_000 + number + dice.randrange(1_000_000) / 1e6,
            arbitration_id=dice.randrange(2**29 if extended else 2**11),
            is_extended_id=extended,
            is_remote_frame=kind == "remote",
            is_fd=kind == "fd",
            bitrate_switch=kind == "fd" and dice.random() < 0.5,
            error_state_indicator=kind == "fd" and dice.random() < 0.5,
            dlc=length,
            data=None if kind == "remote" else dice.randbytes(length),
            is_rx=dice.random() < 0.5,
        )
        log = io.StringIO()
        can.CanutilsLogWriter(log, channel="can0").on_message_received(message)
        adapter.send(message)
        print(json.dumps({
            "id": message.arbitration_id,
            "extended": extended,
            "kind": kind,
            "length": length,
            "data": message.data.hex(),
            "fast": message.bitrate_switch,
            "passive": message.error_state_indicator,
            "log": log.getvalue().strip(),
            "adapter": adapter.serialPortOrig.read_until(b"\r").decode(),
        }))
    adapter.shutdown()


def speed(path):
    """Frames a second, scaled and without labels."""
    database = cantools.database.load_file(path)
    lines = map(str.split, sys.stdin)
    frames = [(database.get_message_by_name(name), bytes.fromhex(payload)) for name, payload in lines]
    start = time.perf_counter()
    for message, payload in frames:
        message.decode(payload, decode_choices=False)
    print(len(frames) / (time.perf_counter() - start))


{"files": files, "random": random_database, "lines": lines, "speed": speed}[sys.argv[1]](sys.argv[2])
