"""Stands between the gateway and its server. How it behaves is in the file `between.mode`, read for each connection.

pass: moves bytes. stuff: answers an SSLRequest with `S` and bytes behind it. none: answers `N`.
read: ends TLS itself and begins it anew towards the server. strip: and takes SCRAM-SHA-256-PLUS out of the server's offer.
"""

import os
import socket
import ssl
import struct
import threading

PLUS = b"SCRAM-SHA-256-PLUS\0"


def pump(source, target, change):
    try:
        while data := source.recv(65536):
            target.sendall(change(data))
    except OSError:
        pass
    finally:
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def stripped(data):
    at = data.find(PLUS)
    if at < 0:
        return data
    # The offer is the whole message: its length is the first to change.
    body = data[9:].replace(PLUS, b"")
    return data[:1] + struct.pack("!I", len(body) + 8) + data[5:9] + body


def relay(client, server, change=bytes):
    threading.Thread(target=pump, args=(client, server, bytes), daemon=True).start()
    pump(server, client, change)


def between(client, server, change):
    client.recv(8)
    client.sendall(b"S")
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain("between.pem", "between.key")
    client = ours.wrap_socket(client, server_side=True)
    server.sendall(struct.pack("!II", 8, 80877103))
    assert server.recv(1) == b"S"
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    theirs.check_hostname, theirs.verify_mode = False, ssl.CERT_NONE
    relay(client, theirs.wrap_socket(server), change)


def serve(client):
    with open("between.mode", encoding="ascii") as file:
        mode = file.read()
    if mode in ("stuff", "none"):
        client.recv(8)
        client.sendall(b"N" if mode == "none" else b"S" + b"R\0\0\0\x08\0\0\0\0")
        client.recv(1)
        return client.close()
    server = socket.create_connection(("127.0.0.1", int(os.environ["SERVER_PORT"])))
    if mode == "pass":
        return relay(client, server)
    between(client, server, stripped if mode == "strip" else bytes)


listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
