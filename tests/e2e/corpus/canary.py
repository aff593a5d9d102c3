"""Finds canaries in what a client was told: as they are, and behind what hides them from nobody who looks."""

import base64
import re
import struct

from wire import fields_of, report_of
from worlds import canaries, secrets


LONG_SHAPE = 20


def plain(value):
    return re.sub(r"[^a-z0-9]", "", value.lower())


def shape(value):
    """`abca` and `xyzx` have one shape: whoever exchanges letters for others hides nothing."""
    seen = {}
    return bytes(seen.setdefault(c, len(seen)) for c in value)


class Watch:
    def __init__(self):
        self.known, self.shapes = {}, {}
        for canary in canaries() | set(secrets("shop")["bio"]):
            value = plain(canary)
            for form in (value, value[::-1], value.encode().hex(), value[::-1].encode().hex()):
                self.known[form] = canary
            for shift in range(3):
                coded = base64.b64encode(b"\0" * shift + canary.encode()).decode()
                self.known[plain(coded[shift + 1 : -3])] = canary
            if value.isalpha() and len(set(value)) < len(value) - 2:
                self.shapes[shape(value)] = canary
                self.shapes[shape(value[::-1])] = canary
        self.lengths = sorted({len(s) for s in self.shapes})
        self.any = re.compile("|".join(sorted(map(re.escape, self.known))))
        binary = [(">i", int(pin)) for pin in secrets("shop")["pin"]] + [(">q", int(pin)) for pin in secrets("shop")["pin"]]
        binary += [(">d", float(ratio)) for ratio in secrets("shop")["ratio"]]
        self.binary = {struct.pack(form, value): str(value) for form, value in binary}

    def seen(self, received):
        """The canaries in what was received."""
        return {canary for value in texts(received) for canary in self.in_text(value)} | self.in_binary(received)

    def in_text(self, value):
        normal = plain(value)
        found = {self.known[hit] for hit in self.any.findall(normal)}
        for length in self.lengths:
            # Short shapes turn up by chance in long texts, so they must be all of the value.
            ends = range(min(len(normal), 400) - length + 1) if length >= LONG_SHAPE else [0] * (len(normal) == length)
            for at in ends:
                part = normal[at : at + length]
                if part.isalpha() and (canary := self.shapes.get(shape(part))):
                    found.add(canary)
        return found

    def in_binary(self, received):
        blocks = [b"".join(v for v in fields_of(p) if v) for k, p in received if k == b"D"]
        return {canary for block in blocks for form, canary in self.binary.items() if form in block}


def texts(received):
    """Values alone, rows, columns, and all that came in a row: a value may come letter by letter."""
    rows = []
    for kind, payload in received:
        if kind == b"D":
            rows.append([decoded(v) for v in fields_of(payload)])
        elif kind == b"d":
            rows.append(payload.decode(errors="replace").split("\t"))
        elif kind in (b"E", b"N"):
            yield from report_of(payload).values()
        else:
            yield payload.decode(errors="replace")
    for row in rows:
        yield from row
        yield "".join(row)
    for column in range(max(map(len, rows), default=0)):
        yield "".join(row[column] for row in rows if column < len(row))
    yield "".join("".join(row) for row in rows)
    for line in (payload for kind, payload in received if kind == b"d"):
        yield line.decode(errors="replace")


def decoded(value):
    return "" if value is None else value.decode(errors="replace")
