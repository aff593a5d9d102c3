"""A client that speaks the protocol byte by byte, and sends what no driver would."""

import base64
import hashlib
import hmac
import os
import socket
import struct
import time

ANSWER_MAX_S = 15
# Row types and other things that a database makes have numbers of their own in each database.
FIRST_OWN_OID = 16384


def text(value):
    """A text of the protocol; what no UTF-8 is stands in it as surrogates."""
    return value.encode(errors="surrogateescape") + b"\0"


def message(kind, body=b""):
    return kind + struct.pack(">i", len(body) + 4) + body


def query(sql):
    return message(b"Q", text(sql))


def parse(name, sql):
    return message(b"P", text(name) + text(sql) + struct.pack(">h", 0))


def bind(portal, statement, parameters=(), binary=False):
    values = b"".join(
        struct.pack(">i", -1) if v is None else struct.pack(">i", len(v.encode())) + v.encode() for v in parameters
    )
    formats = struct.pack(">hh", 1, 1) if binary else struct.pack(">h", 0)
    body = text(portal) + text(statement) + struct.pack(">h", 0) + struct.pack(">h", len(parameters)) + values + formats
    return message(b"B", body)


def describe(kind, name):
    return message(b"D", kind + text(name))


def execute(portal, rows=0):
    return message(b"E", text(portal) + struct.pack(">i", rows))


def close(kind, name):
    return message(b"C", kind + text(name))


SYNC = message(b"S")
FLUSH = message(b"H")


class Session:
    """One connection; everything that came is kept in `received`, message by message."""

    def __init__(self, port, database, user, password):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_MAX_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer, self.received, self.ended = b"", [], None
        self.prepared = 0
        body = struct.pack(">i", 196608) + text("user") + text(user) + text("database") + text(database) + b"\0"
        self.socket.sendall(struct.pack(">i", len(body) + 4) + body)
        kind, asked = self.next() or (None, b"")
        if (kind, asked[:4]) == (b"R", struct.pack(">i", 3)):
            self.send(message(b"p", text(password)))
        elif (kind, asked[:4]) == (b"R", struct.pack(">i", 10)):
            self.prove(password)
        self.until_ready()
        if not self.received or self.received[-1][0] != b"Z":
            raise ConnectionError(f"no login: {self.received} {self.ended}")
        self.received.clear()

    def prove(self, password):
        """SCRAM-SHA-256, as a server asks for it that is reached directly."""
        mine = "n=,r=" + base64.b64encode(os.urandom(18)).decode()
        first = ("n,," + mine).encode()
        self.send(message(b"p", text("SCRAM-SHA-256") + struct.pack(">i", len(first)) + first))
        theirs = (self.next() or (b"", b"    "))[1][4:].decode()
        nonce, salt, rounds = (part.split("=", 1)[1] for part in theirs.split(",")[:3])
        salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), int(rounds))
        key = hmac.digest(salted, b"Client Key", "sha256")
        signed = hmac.digest(hashlib.sha256(key).digest(), f"{mine},{theirs},c=biws,r={nonce}".encode(), "sha256")
        proof = base64.b64encode(bytes(a ^ b for a, b in zip(key, signed))).decode()
        self.send(message(b"p", f"c=biws,r={nonce},p={proof}".encode()))

    def send(self, data):
        try:
            self.socket.sendall(data)
        except OSError as error:
            self.ended = self.ended or f"send: {error}"

    def send_in_pieces(self, data, pieces):
        """The same bytes in several writes, cut at places that fall inside heads, names and texts alike."""
        cuts = sorted({1, 4, 5, *(len(data) * n // pieces for n in range(1, pieces))} | {len(data) - 1})
        for start, end in zip([0, *cuts], [*cuts, len(data)]):
            self.send(data[start:end])
            time.sleep(0.0004)

    def until_ready(self, times=1):
        """Reads until the server has been ready so often, has asked for COPY data, or has gone."""
        while times > 0 and self.ended is None:
            kind, _ = self.next() or (None, None)
            if kind == b"Z":
                times -= 1
            if kind == b"G":
                self.send(message(b"f", text("no data")))

    def next(self):
        while self.ended is None:
            if len(self.buffer) >= 5:
                length = struct.unpack(">i", self.buffer[1:5])[0] + 1
                if len(self.buffer) >= length:
                    found = (self.buffer[:1], self.buffer[5:length])
                    self.buffer = self.buffer[length:]
                    self.received.append(found)
                    return found
            try:
                data = self.socket.recv(262144)
            except OSError as error:
                data, self.ended = b"", f"receive: {error}"
            if not data:
                self.ended = self.ended or "closed"
            self.buffer += data
        return None

    def close(self):
        try:
            self.socket.sendall(message(b"X"))
        except OSError:
            pass
        self.socket.close()


def fields_of(payload):
    """The values of a DataRow."""
    (count,), at, values = struct.unpack(">h", payload[:2]), 2, []
    for _ in range(count):
        (length,) = struct.unpack(">i", payload[at : at + 4])
        at += 4
        values.append(None if length < 0 else payload[at : at + length])
        at += max(length, 0)
    return values


def columns_of(payload):
    """Names and types of a RowDescription, without what differs between two databases of one making."""
    (count,), at, columns = struct.unpack(">h", payload[:2]), 2, []
    for _ in range(count):
        end = payload.index(b"\0", at)
        kind, size = struct.unpack(">ih", payload[end + 7 : end + 13])
        own = "own" if kind >= FIRST_OWN_OID else kind
        columns.append((payload[at:end].decode(errors="replace"), own, size))
        at = end + 19
    return columns


def report_of(payload):
    """The fields of an ErrorResponse or NoticeResponse."""
    parts = [part for part in payload.split(b"\0") if part]
    return {chr(part[0]): part[1:].decode(errors="replace") for part in parts}


def shown(received, whole=True):
    """What a session was told, one entry a message, without what differs in every session."""
    told = []
    for kind, payload in received:
        if kind == b"D":
            told.append(("row", fields_of(payload)))
        elif kind == b"T":
            told.append(("columns", columns_of(payload)))
        elif kind in (b"E", b"N"):
            report = report_of(payload)
            told.append(("error" if kind == b"E" else "notice", {f: report[f] for f in "SCMDHWstcn" if f in report}))
        elif kind == b"C":
            told.append(("done", payload[:-1].decode(errors="replace")))
        elif kind in (b"d", b"S", b"G", b"H", b"I", b"s", b"V"):
            told.append((kind.decode(), payload))
        elif kind == b"A":
            told.append(("notification", payload[4:]))
        elif kind == b"Z" and whole:
            told.append(("ready", payload))
    return told


def errors(received):
    return [report_of(payload) for kind, payload in received if kind == b"E"]
