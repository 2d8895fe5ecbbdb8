"""Conditions of interlocks: the part of SQL that tests use, over `stream.column`, with its logic of three
values."""

import re

TOKEN = re.compile(r"\s*(?:(\d+\.?\d*)|'((?:[^']|'')*)'|([A-Za-z_]\w*(?:\.\w+)?)|(<=|>=|<>|!=|[-+*/()<>=]))")

COMPARISONS = {
    "<": lambda a, b: a < b, "<=": lambda a, b: a <= b, ">": lambda a, b: a > b, ">=": lambda a, b: a >= b,
    "=": lambda a, b: a == b, "<>": lambda a, b: a != b, "!=": lambda a, b: a != b,
}


def tokens(text):
    """(kind, value) of each."""
    at, found, text = 0, [], text.strip()
    while at < len(text):
        match = TOKEN.match(text, at)
        if match is None:
            raise ValueError(f"cannot read {text[at:]!r}")
        number, quoted, word, sign = match.groups()
        if number is not None:
            found.append(("value", float(number)))
        elif quoted is not None:
            found.append(("value", quoted.replace("''", "'")))
        elif word is not None and word.upper() in ("TRUE", "FALSE", "NULL"):
            found.append(("value", {"TRUE": True, "FALSE": False, "NULL": None}[word.upper()]))
        elif word is not None and "." in word:
            found.append(("column", tuple(word.split("."))))
        else:
            found.append(("sign", (word or sign).upper()))
        at = match.end()
    return found


def both(a, b):
    """AND: false if either is, else unknown if either is."""
    if a is False or b is False:
        return False
    return None if a is None or b is None else True


def negated(a):
    """NOT."""
    return None if a is None else not a


class Condition:
    """`holds(rows)` is True, False or None (unknown); `rows` has the newest row of each stream."""

    def __init__(self, text):
        self.text = text
        self.left = tokens(text)
        self.streams = {value[0] for kind, value in self.left if kind == "column"}
        self.tree = self.disjunction()
        if self.left:
            raise ValueError(f"{text!r}: cannot read on from {self.left[0]}")

    def holds(self, rows):
        """What it says of these rows."""
        return self.tree(rows)

    def sign(self, *signs):
        """Takes one of these, if it is next."""
        if self.left and self.left[0][0] == "sign" and self.left[0][1] in signs:
            return self.left.pop(0)[1]
        return None

    def disjunction(self):
        """a OR b."""
        left = self.conjunction()
        while self.sign("OR"):
            a, b = left, self.conjunction()
            left = lambda rows, a=a, b=b: negated(both(negated(a(rows)), negated(b(rows))))
        return left

    def conjunction(self):
        """a AND b."""
        left = self.negation()
        while self.sign("AND"):
            a, b = left, self.negation()
            left = lambda rows, a=a, b=b: both(a(rows), b(rows))
        return left

    def negation(self):
        """NOT a."""
        if self.sign("NOT"):
            inner = self.negation()
            return lambda rows: negated(inner(rows))
        return self.comparison()

    def comparison(self):
        """a < b, a IS [NOT] NULL, a [NOT] BETWEEN b AND c, or a alone."""
        left = self.sum()
        if self.sign("IS"):
            wanted = self.sign("NOT") is None
            if self.left.pop(0) != ("value", None):
                raise ValueError(f"{self.text!r}: NULL is expected after IS")
            return lambda rows: (left(rows) is None) == wanted
        inverted = self.sign("NOT")
        if self.sign("BETWEEN"):
            low = self.sum()
            if not self.sign("AND"):
                raise ValueError(f"{self.text!r}: AND is expected after BETWEEN")
            high = self.sum()
            inside = lambda rows: both(
                compared(">=", left(rows), low(rows)), compared("<=", left(rows), high(rows)))
            return (lambda rows: negated(inside(rows))) if inverted else inside
        sign = self.sign(*COMPARISONS)
        if sign is None:
            return left
        right = self.sum()
        return lambda rows: compared(sign, left(rows), right(rows))

    def sum(self):
        """a + b."""
        return self.chain(self.product, {"+": lambda a, b: a + b, "-": lambda a, b: a - b})

    def product(self):
        """a * b."""
        return self.chain(self.operand, {"*": lambda a, b: a * b, "/": lambda a, b: a / b})

    def chain(self, part, signs):
        """Operators of one strength, from the left."""
        left = part()
        while sign := self.sign(*signs):
            a, b, make = left, part(), signs[sign]
            left = lambda rows, a=a, b=b, make=make: (
                None if a(rows) is None or b(rows) is None else make(a(rows), b(rows)))
        return left

    def operand(self):
        """A value, a column, -a, or what is in parentheses."""
        if self.sign("("):
            inner = self.disjunction()
            if not self.sign(")"):
                raise ValueError(f"{self.text!r}: ) is missing")
            return inner
        if self.sign("-"):
            inner = self.operand()
            return lambda rows: None if inner(rows) is None else -inner(rows)
        kind, value = self.left.pop(0)
        if kind == "value":
            return lambda _rows: value
        if kind == "column":
            stream, column = value
            return lambda rows: (rows.get(stream) or {}).get(column)
        raise ValueError(f"{self.text!r}: {value!r} is not expected")


def compared(sign, a, b):
    """A comparison with NULL is unknown."""
    return None if a is None or b is None else COMPARISONS[sign](a, b)
