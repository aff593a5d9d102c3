"""PostgreSQL's messages by hand: what drivers do not send, and what must come back."""

import select
import socket
import struct

import psycopg
from support import login

QUIET_S = 20


def message(tag, body=b""):
    return tag + struct.pack("!i", len(body) + 4) + body


def name(text):
    return text.encode() + b"\0"


def parse(statement, text):
    return message(b"P", name(statement) + name(text) + b"\0\0")


def bind(portal, statement):
    return message(b"B", name(portal) + name(statement) + b"\0\0\0\0\0\0")


def describe(kind, what):
    return message(b"D", kind + name(what))


def execute(portal, rows=0):
    return message(b"E", name(portal) + struct.pack("!i", rows))


def close(kind, what):
    return message(b"C", kind + name(what))


def query(text):
    return message(b"Q", name(text))


SYNC = message(b"S")
FLUSH = message(b"H")


class Wire:
    """A session that is logged in by a driver, and then spoken with by hand."""

    def __init__(self, role, dbname="shop"):
        self.driver = psycopg.connect(dbname=dbname, autocommit=True, sslmode="disable", **login(role))
        self.socket = socket.socket(fileno=socket.dup(self.driver.fileno()))
        self.socket.setblocking(True)
        self.socket.settimeout(QUIET_S)
        self.held = b""
        self.raw = bytearray()

    def close(self):
        self.socket.close()
        self.driver.close()

    def send(self, *messages):
        self.socket.sendall(b"".join(messages))

    def next(self):
        while len(self.held) < 5 or len(self.held) < 1 + struct.unpack("!i", self.held[1:5])[0]:
            more = self.socket.recv(65536)
            if not more:
                raise ConnectionError(f"the session has ended: {self.held!r}")
            self.held += more
            self.raw += more
        bytes_ = 1 + struct.unpack("!i", self.held[1:5])[0]
        found, self.held = (self.held[:1].decode(), self.held[5:bytes_]), self.held[bytes_:]
        return found

    def until_ready(self, times=1):
        """Messages up to that many ReadyForQuery, in short."""
        found = []
        while times > 0:
            tag, body = self.next()
            times -= tag == "Z"
            if tag != "S" and not is_about_a_cut(tag, body):
                found.append(short(tag, body))
        return found

    def ask(self, *messages, times=1):
        self.send(*messages)
        return self.until_ready(times)

    def is_silent(self, seconds=0.3):
        return not select.select([self.socket], [], [], seconds)[0]


def fields(body):
    parts = body.rstrip(b"\0").split(b"\0")
    return {part[:1].decode(): part[1:].decode("utf-8", "replace") for part in parts if part}


def is_about_a_cut(tag, body):
    """The server tells where it cuts an identifier: of a text that the gateway refuses it never hears."""
    return tag == "N" and fields(body)["C"] == "42622"


def row(body):
    count, at, values = struct.unpack("!h", body[:2])[0], 2, []
    for _ in range(count):
        length = struct.unpack("!i", body[at : at + 4])[0]
        at += 4
        values.append(None if length < 0 else body[at : at + length].decode("utf-8", "replace"))
        at += max(length, 0)
    return tuple(values)


def short(tag, body):
    match tag:
        case "E" | "N":
            return tag, fields(body)["C"]
        case "D":
            return tag, row(body)
        case "C" | "Z":
            return tag, body.rstrip(b"\0").decode()
        case "T":
            return tag, struct.unpack("!h", body[:2])[0]
        case "t":
            return tag, struct.unpack("!h", body[:2])[0]
        case _:
            return (tag,)
