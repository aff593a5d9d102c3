"""TLS with drivers, and with a client that is rude about it (CVE-2021-23214 and its kin)."""

import asyncio
import os
import socket
import ssl
import struct

import asyncpg
import psycopg
from support import case, login, main

ROOT = "ca.pem"
SSL_REQUEST = struct.pack("!II", 8, 80877103)
GSS_REQUEST = struct.pack("!II", 8, 80877104)


def verified(role):
    return {"dbname": "shop", "sslmode": "verify-full", "sslrootcert": ROOT, **login(role)}


@case
def a_pipeline_of_psycopg_works_over_tls():
    with psycopg.connect(**verified("dba"), autocommit=True) as connection:
        assert connection.pgconn.ssl_in_use
        with connection.pipeline():
            cursors = [connection.execute("select %s::int, repeat('x', %s)", (n, n * 37 % 9000)) for n in range(300)]
        for n, cursor in enumerate(cursors):
            assert cursor.fetchone() == (n, "x" * (n * 37 % 9000))


@case
def copy_of_psycopg_goes_both_ways_over_tls():
    rows = "".join(f"{n}\t{'y' * (n % 3000)}\n" for n in range(20000)).encode()
    with psycopg.connect(**verified("dba"), autocommit=True) as connection:
        connection.execute("create temp table copied (n int, t text)")
        with connection.cursor().copy("copy copied from stdin") as copy:
            for at in range(0, len(rows), 77_777):
                copy.write(rows[at : at + 77_777])
        with connection.cursor().copy("copy (select * from copied order by n) to stdout") as copy:
            assert b"".join(bytes(part) for part in copy) == rows


@case
async def asyncpg_works_over_tls():
    context = ssl.create_default_context(cafile=ROOT)
    connections = [await asyncpg.connect(database="shop", ssl=context, **login("dba")) for _ in range(4)]

    async def work(connection):
        for n in range(200):
            assert await connection.fetchval("select $1::int + 1", n) == n + 1
        assert len(await connection.fetchval("select decode(repeat('ab', $1), 'hex')", 3_000_000)) == 3_000_000

    await asyncio.gather(*(work(connection) for connection in connections))
    for connection in connections:
        await connection.close()


def context(version=None, alpn=None):
    made = ssl.create_default_context(cafile=ROOT)
    if version:
        made.minimum_version = made.maximum_version = version
    if alpn:
        made.set_alpn_protocols(alpn)
    return made


def plain():
    connection = socket.create_connection(("127.0.0.1", int(os.environ["GATEWAY_PORT"])))
    connection.settimeout(10)
    return connection


def wrap(connection, with_context=None, session=None):
    return (with_context or context()).wrap_socket(connection, server_hostname="localhost", session=session)


def requested(**options):
    connection = plain()
    connection.sendall(SSL_REQUEST)
    assert connection.recv(1) == b"S"
    return wrap(connection, **options)


def startup():
    words = ["user", os.environ["GATEWAY_USER"], "database", "shop", ""]
    body = struct.pack("!I", 196608) + b"".join(word.encode() + b"\0" for word in words)
    return struct.pack("!I", len(body) + 4) + body


def message(kind, body):
    return kind + struct.pack("!I", len(body) + 4) + body


def until(connection, wanted):
    """All bytes up to the end of a message of this kind."""
    seen = b""
    while True:
        at = 0
        while len(seen) >= at + 5:
            kind, length = seen[at : at + 1], struct.unpack("!I", seen[at + 1 : at + 5])[0]
            at += length + 1
            if kind == wanted and len(seen) >= at:
                return seen
        data = connection.recv(65536)
        assert data, f"the end came before {wanted}: {seen}"
        seen += data


def speak(connection, mark="by hand"):
    """Logs in and asks for one value."""
    connection.sendall(startup())
    until(connection, b"R")
    connection.sendall(message(b"p", os.environ["DBA_TOKEN"].encode() + b"\0"))
    until(connection, b"Z")
    connection.sendall(message(b"Q", f"select '{mark}'\0".encode()))
    assert mark.encode() in until(connection, b"Z")


def to_the_end(connection):
    seen = b""
    try:
        while data := connection.recv(65536):
            seen += data
    except (ConnectionError, ssl.SSLError):
        pass
    return seen


def is_refused(seen, words):
    """One error and nothing else: the startup message was not read as one."""
    assert seen[:1] == b"E" and b"C08P01" in seen and words in seen, seen
    assert struct.unpack("!I", seen[1:5])[0] + 1 == len(seen), seen


@case
def bytes_behind_an_ssl_request_are_never_read_as_protocol():
    for request in (SSL_REQUEST, GSS_REQUEST):
        for behind in (startup(), b"\0", startup() + message(b"p", os.environ["DBA_TOKEN"].encode() + b"\0")):
            connection = plain()
            connection.sendall(request + behind)
            is_refused(to_the_end(connection), b"bytes came before the answer")


@case
def an_ssl_request_inside_tls_is_refused():
    connection = requested()
    connection.sendall(SSL_REQUEST)
    is_refused(to_the_end(connection), b"encryption has been negotiated already")


def gss_refused():
    connection = plain()
    connection.sendall(GSS_REQUEST)
    assert connection.recv(1) == b"N"
    return connection


@case
def a_third_negotiation_is_refused():
    connection = gss_refused()
    connection.sendall(GSS_REQUEST)
    assert connection.recv(1) == b"N"
    connection.sendall(SSL_REQUEST)
    is_refused(to_the_end(connection), b"encryption has been negotiated already")


@case
def tls_after_a_refused_gss_request_works():
    connection = gss_refused()
    connection.sendall(SSL_REQUEST)
    assert connection.recv(1) == b"S"
    speak(wrap(connection))


@case
def after_the_answer_nothing_in_clear_is_taken():
    for bytes_in_clear in (startup(), b"\x16garbage and more garbage", bytes(100), b"GET / HTTP/1.0\r\n\r\n"):
        connection = plain()
        connection.sendall(SSL_REQUEST)
        assert connection.recv(1) == b"S"
        connection.sendall(bytes_in_clear)
        seen = to_the_end(connection)
        # A TLS alert is all that may come: no message of the protocol.
        assert seen[:1] in (b"", b"\x15") and len(seen) <= 7, seen


@case
def what_comes_in_clear_after_the_handshake_ends_the_session():
    connection = requested()
    speak(connection)
    raw = socket.socket(fileno=os.dup(connection.fileno()))
    raw.settimeout(10)
    raw.sendall(message(b"Q", b"select 'smuggled in clear'\0"))
    assert b"smuggled" not in to_the_end(raw)
    with open(os.environ["SERVER_LOG"], encoding="utf-8", errors="replace") as log:
        assert "smuggled in clear" not in log.read()


@case
def direct_tls_needs_the_name_of_the_protocol():
    speak(wrap(plain(), context(alpn=["postgresql"])))
    speak(wrap(plain(), context(alpn=["h2", "postgresql"])))
    connection = wrap(plain())
    is_refused(to_the_end(connection), b"direct TLS needs ALPN")
    try:
        to_the_end(wrap(plain(), context(alpn=["h2"])))
    except ssl.SSLError as error:
        assert "no application protocol" in str(error), error
    else:
        raise AssertionError("a handshake for h2 went through")


@case
def libpq_18_speaks_direct_tls():
    assert psycopg.pq.version() >= 170000, "the driver brings a libpq that knows sslnegotiation"
    with psycopg.connect(sslnegotiation="direct", **verified("dba")) as connection:
        assert connection.pgconn.ssl_in_use and connection.execute("select 40 + 2").fetchone() == (42,)


@case
def direct_tls_after_a_negotiation_is_refused():
    connection = plain()
    connection.sendall(GSS_REQUEST)
    assert connection.recv(1) == b"N"
    connection.sendall(b"\x16\x03\x01\x00\x05hello")
    is_refused(to_the_end(connection), b"TLS is not served here, or not at this point")


@case
def sessions_are_resumed():
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        kept = context(version)
        first = requested(with_context=kept)
        # A ticket of TLS 1.3 comes after the handshake.
        speak(first)
        assert first.session is not None and not first.session_reused
        second = requested(with_context=kept, session=first.session)
        assert second.session_reused, version
        speak(second)


@case
def any_cut_of_the_records_gives_the_same_session():
    inbound, outbound = ssl.MemoryBIO(), ssl.MemoryBIO()
    secured = context().wrap_bio(inbound, outbound, server_hostname="localhost")
    connection = plain()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(SSL_REQUEST)
    assert connection.recv(1) == b"S"

    class Slow:
        """Sends one byte at a time."""

        def flush(self):
            for byte in outbound.read():
                connection.sendall(bytes([byte]))

        def run(self, action):
            while True:
                try:
                    done = action()
                except ssl.SSLWantReadError:
                    self.flush()
                    data = connection.recv(65536)
                    inbound.write(data) if data else inbound.write_eof()
                else:
                    self.flush()
                    return done

        def sendall(self, data):
            self.run(lambda: secured.write(data))

        def recv(self, size):
            return self.run(lambda: secured.read(size))

    slow = Slow()
    slow.run(secured.do_handshake)
    speak(slow, "byte by byte")


@case
def a_reader_that_is_slow_gets_everything():
    connection = requested()
    speak(connection)
    connection.sendall(message(b"Q", b"select repeat('z', 1000) from generate_series(1, 20000)\0"))
    import time

    time.sleep(1)
    seen = bytearray()
    while not seen.endswith(b"Z\0\0\0\x05I"):
        seen += connection.recv(8192)
    assert seen.count(b"z" * 1000) == 20000


main()
