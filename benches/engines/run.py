#!/usr/bin/env python3
"""The same two-way TCP relay on io_uring and epoll (the product's drivers), tokio, monoio and glommio, in one interleaved run.

TL;DR:  benches/engines/run.py                  three rounds of 2 s a cell: about five minutes
        benches/engines/run.py --engine io_uring --engine tokio --clients 64 --seconds 5

CPU is user + system time of the relay's process per transaction of `pgbench -S -M prepared`. Only ratios inside one run mean
anything. Pinned: the relay alone on core 1; client and server on core 0. System calls are counted with strace in runs of
their own, when it is there.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "peers"))
import run as peers  # noqa: E402
import servers  # noqa: E402

ENGINES = ["io_uring", "epoll", "tokio", "monoio", "glommio"]
COUNTED_CLIENTS = [1, 32]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", action="append", choices=ENGINES)
    parser.add_argument("--only", action="append", choices=["pinned", "unpinned"])
    parser.add_argument("--clients", action="append", type=int)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--relay", action="append", metavar="NAME=PROGRAM",
                        help="another relay to measure beside: called as PROGRAM NAME PORT UPSTREAM_PORT")
    chosen = parser.parse_args()
    chosen.engine = chosen.engine or ENGINES
    chosen.only = chosen.only or ["pinned", "unpinned"]
    chosen.clients = chosen.clients or peers.CLIENTS
    chosen.protocol = ["prepared"]
    return chosen


def build():
    target = os.environ.setdefault("CARGO_TARGET_DIR", os.path.expanduser("~/.cache/wireward/target"))
    subprocess.run(["cargo", "build", "--release", "-p", "benches", "--example", "relay"], cwd=peers.ROOT, check=True)
    return os.path.join(target, "release", "examples", "relay")


class Context:
    """Everything that runs, and how to end it."""

    def __init__(self, options, directory):
        self.options, self.directory = options, directory
        program = build()
        relays = [(engine, program) for engine in options.engine] + [tuple(text.split("=", 1)) for text in options.relay or []]
        self.postgres = servers.Postgres(directory)
        self.processes, self.targets = [self.postgres.process], []
        for name, relay in relays:
            port = servers.free_port()
            process, log = servers.start([relay, name, str(port), str(self.postgres.port)], directory, name)
            servers.wait_for(port, process, log)
            self.processes.append(process)
            self.targets.append(servers.Target(name, port, servers.PASSWORD, {"proxy": process.pid}))

    def stop(self):
        for process in reversed(self.processes):
            servers.stop(process, signal.SIGINT)


def system_calls(context, target, clients):
    """Of the relay, per transaction; logins are among them."""
    counts = os.path.join(context.directory, "calls")
    strace = subprocess.Popen(["strace", "-f", "-c", "-o", counts, "-p", str(target.processes["proxy"])], stderr=subprocess.DEVNULL)
    time.sleep(0.3)
    result = peers.pgbench(context.postgres, target, "prepared", clients, 1, None, context.directory)
    strace.send_signal(signal.SIGINT)
    strace.wait()
    with open(counts, encoding="utf-8") as table:
        total = re.search(r"^100\.00\s+[\d.]+\s+(?:\d+\s+)?(\d+)\s+(?:\d+\s+)?total$", table.read(), re.M)
    return int(total.group(1)) / result["transactions"]


def markdown(table, calls):
    lines = ["| placement, clients | engine | TPS | CPU µs/tx | of it user | sleeps/tx | p50 µs | p99 µs | CPU / io_uring | system calls/tx |",
             "|" + "---|" * 10]
    for row in table:
        counted = calls.get((row["target"], row["clients"]), "") if row["placement"] == "unpinned" else ""
        lines.append("| " + " | ".join([
            f"{row['placement']}, {row['clients']}", row["target"], peers.number(row, "tps"), peers.number(row, "cpu_us", 1),
            peers.number(row, "user_us", 1), peers.number(row, "sleeps", 2), peers.number(row, "p50_us"), peers.number(row, "p99_us"),
            peers.ratio(row, table, "io_uring", "cpu_us"), f"{counted:.1f}" if counted else ""]) + " |")
    return "\n".join(lines)


def main():
    options = arguments()
    directory = tempfile.mkdtemp(prefix="wireward-engines-")
    os.chmod(directory, 0o755)
    context = None
    try:
        context = Context(options, directory)
        table = peers.medians(peers.measure(context))
        counting = shutil.which("strace") and [(t, n) for t in context.targets for n in COUNTED_CLIENTS if n in options.clients]
        calls = {(t.name, n): system_calls(context, t, n) for t, n in counting or []}
        print(markdown(table, calls))
        print(f"\n{peers.write_csv(table)}", file=sys.stderr)
    finally:
        if context:
            context.stop()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
