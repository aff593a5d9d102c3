#!/usr/bin/env python3
"""A stand-in for PostgreSQL that holds thousands of sessions: 9,000 real back-ends do not fit into this machine.

It speaks the startup, SCRAM-SHA-256 (RFC 5802, 7677) and the answers of one row that any statement gets; it keeps the sessions
open and does nothing more. What is not a session of the proxy before it, such as wireward's reading of the catalogue, is passed on
to the real server, byte for byte.

    standin.py PORT REAL_PORT PASSWORD      runs until it is killed; --deaf: never answers a statement
"""

import asyncio
import base64
import hashlib
import hmac
import os
import struct
import sys

ITERATIONS = 4096
SSL_REQUEST, GSS_REQUEST = 80877103, 80877104


def message(kind, body):
    return kind + struct.pack("!i", len(body) + 4) + body


def digest(key, text):
    return hmac.digest(key, text, "sha256")


class Verifier:
    """What a server keeps of a password; made once, as in pg_authid."""

    def __init__(self, password):
        self.salt = os.urandom(16)
        salted = hashlib.pbkdf2_hmac("sha256", password.encode(), self.salt, ITERATIONS)
        self.stored_key = hashlib.sha256(digest(salted, b"Client Key")).digest()
        self.server_key = digest(salted, b"Server Key")


STATUS = b"".join(message(b"S", name + b"\0" + value + b"\0") for name, value in [
    (b"server_version", b"15.18"), (b"server_encoding", b"UTF8"), (b"client_encoding", b"UTF8"), (b"DateStyle", b"ISO, MDY"),
    (b"integer_datetimes", b"on"), (b"standard_conforming_strings", b"on"), (b"TimeZone", b"UTC"), (b"IntervalStyle", b"postgres")])
READY = message(b"Z", b"I")
DISCARD = message(b"Q", b"DISCARD ALL\0")
DESCRIPTION = message(b"T", struct.pack("!h", 1) + b"one\0" + struct.pack("!ihihih", 0, 0, 23, 4, -1, 0))
ROW = message(b"D", struct.pack("!hi", 1, 1) + b"1")
COMPLETE = message(b"C", b"SELECT 1\0")
ANSWERS = {b"Q": DESCRIPTION + ROW + COMPLETE + READY, b"P": message(b"1", b""), b"B": message(b"2", b""), b"D": DESCRIPTION,
           b"E": ROW + COMPLETE, b"S": READY, b"C": message(b"3", b""), b"H": b""}


class Session(asyncio.Protocol):
    __slots__ = ("transport", "held", "step", "scram", "other")
    verifier, real_port, deaf = None, 0, False

    def __init__(self):
        self.held, self.step, self.scram, self.other = b"", self.startup, None, None

    def connection_made(self, transport):
        self.transport = transport

    def connection_lost(self, _):
        if self.other:
            self.other.close()
        self.step = self.scram = None

    def data_received(self, data):
        if self.other:
            return self.other.write(data)
        self.held += data
        while self.step and self.step():
            pass

    def take(self, tagged):
        """The next whole message, or None."""
        head = 1 if tagged else 0
        if len(self.held) < head + 4:
            return None
        length = head + struct.unpack_from("!i", self.held, head)[0]
        if len(self.held) < length:
            return None
        whole, self.held = self.held[:length], self.held[length:]
        return whole

    def startup(self):
        whole = self.take(False)
        if whole is None:
            return False
        if struct.unpack_from("!i", whole, 4)[0] in (SSL_REQUEST, GSS_REQUEST):
            self.transport.write(b"N")
            return True
        if b"wireward catalogue" in whole:
            self.step = None
            asyncio.ensure_future(self.pass_on(whole + self.held))
            return False
        self.transport.write(message(b"R", struct.pack("!i", 10) + b"SCRAM-SHA-256\0\0"))
        self.step = self.scram_first
        return True

    def scram_first(self):
        whole = self.take(True)
        if whole is None:
            return False
        bare = whole[whole.index(b"n=,r="):]
        nonce = bare[5:] + base64.b64encode(os.urandom(18))
        first = b"r=" + nonce + b",s=" + base64.b64encode(self.verifier.salt) + b",i=%d" % ITERATIONS
        self.scram = (bare, first)
        self.transport.write(message(b"R", struct.pack("!i", 11) + first))
        self.step = self.scram_final
        return True

    def scram_final(self):
        whole = self.take(True)
        if whole is None:
            return False
        without_proof, proof = whole[5:].rsplit(b",p=", 1)
        text = b",".join([*self.scram, without_proof])
        signature = digest(self.verifier.stored_key, text)
        key = bytes(a ^ b for a, b in zip(base64.b64decode(proof), signature))
        if hashlib.sha256(key).digest() != self.verifier.stored_key:
            self.transport.write(message(b"E", b"SFATAL\0VFATAL\0C28P01\0Mwrong password\0\0"))
            self.transport.close()
            return False
        final = b"v=" + base64.b64encode(digest(self.verifier.server_key, text))
        self.transport.write(message(b"R", struct.pack("!i", 12) + final) + message(b"R", struct.pack("!i", 0)) + STATUS
                             + message(b"K", struct.pack("!ii", 1, 1)) + READY)
        self.scram, self.step = None, self.statement
        return True

    def statement(self):
        whole = self.take(True)
        if whole is None:
            return False
        if whole[:1] == b"X":
            self.transport.close()
            return False
        if not self.deaf:
            self.transport.write(message(b"C", b"DISCARD ALL\0") + READY if whole == DISCARD else ANSWERS[whole[:1]])
        return True

    async def pass_on(self, beginning):
        reader, self.other = await asyncio.open_connection("127.0.0.1", self.real_port)
        self.other.write(beginning)
        while data := await reader.read(65536):
            self.transport.write(data)
        self.transport.close()


async def main(port, real_port, password, deaf):
    Session.verifier, Session.real_port, Session.deaf = Verifier(password), real_port, deaf
    server = await asyncio.get_running_loop().create_server(Session, "127.0.0.1", port, backlog=4096)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], "--deaf" in sys.argv[4:]))
