"""What the scripts of this directory share: logins from the environment, a list of cases, a tap on the wire."""

import asyncio
import inspect
import os
import socket
import sys
import threading

CASES = {}


def case(function):
    """Registers a case; its name is a sentence."""
    CASES[function.__name__] = function
    return function


def main():
    if sys.argv[1:] == ["--list"]:
        print("\n".join(CASES))
        return
    for name in sys.argv[1:] or CASES:
        outcome = CASES[name]()
        if inspect.iscoroutine(outcome):
            asyncio.run(outcome)


def login(role, port=None):
    """Keyword arguments to log in: `direct`, or through the gateway as `analyst`, `agent` or `dba`."""
    if role == "direct":
        return {
            "host": "127.0.0.1",
            "port": int(os.environ["SERVER_PORT"]),
            "user": os.environ["SERVER_USER"],
            "password": os.environ["SERVER_PASSWORD"],
        }
    # In clear through a tap: what is encrypted would hide every leak from it.
    way = {"port": port, "sslmode": "disable"} if port else {"port": int(os.environ["GATEWAY_PORT"])}
    return {
        "host": "127.0.0.1",
        "user": os.environ["GATEWAY_USER"],
        "password": os.environ[f"{role.upper()}_TOKEN"],
        **way,
    }


def reached_the_server(text):
    with open(os.environ["SERVER_LOG"], encoding="utf-8", errors="replace") as log:
        return text in log.read()


def raises(sqlstate, action):
    """Runs `action` and insists on this SQLSTATE. Works with the errors of all three drivers."""
    try:
        action()
    except Exception as error:
        found = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
        assert found == sqlstate, f"expected {sqlstate}, got {found}: {error!r}"
        return error
    raise AssertionError(f"expected {sqlstate}, but nothing was refused")


class Tap:
    """A relay in front of the gateway that keeps every byte which goes to the client."""

    def __init__(self):
        self.received = bytearray()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def in_clear(self):
        """What the client got, if it began without encryption: else nothing could be found in it."""
        assert self.received[:1] == b"R", bytes(self.received[:20])
        return bytes(self.received)

    def _accept(self):
        while True:
            client, _ = self.listener.accept()
            gateway = socket.create_connection(("127.0.0.1", int(os.environ["GATEWAY_PORT"])))
            threading.Thread(target=self._pump, args=(client, gateway, False), daemon=True).start()
            threading.Thread(target=self._pump, args=(gateway, client, True), daemon=True).start()

    def _pump(self, source, target, keep):
        try:
            while data := source.recv(65536):
                if keep:
                    self.received += data
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            target.close()
