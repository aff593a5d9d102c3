#!/usr/bin/env python3
"""Thousands of idle sessions in one process, a thousand active ones beside them, and what must not stall them.

TL;DR:  benches/peers/storm.py                  about six minutes: 9,000 idle and 1,000 active sessions, plain and TLS, beside pgbouncer
        benches/peers/storm.py --quick          1,000 idle and 50 active ones
        benches/peers/storm.py --only memory    or: active, stalls, connects, reload

Idle sessions have a stand-in behind them (`standin.py`), which logs in by SCRAM as PostgreSQL does; active ones a real PostgreSQL.
Each idle session has run one statement. Memory is the private memory of the whole process (smaps_rollup) with all of them less that with the
first thousand, which have warmed buffers that all share. pgbouncer has 8,900 idle ones beside 1,000 active ones: it takes two
descriptors a session, and a process may have 20,000 here. p99 is of every transaction of pgbench but each client's first and last.
"""

import argparse
import asyncio
import os
import re
import resource
import shutil
import signal
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time

import run
import servers

HERE = os.path.dirname(os.path.abspath(__file__))
STRANGERS_AT_ONCE = 64
HANDSHAKES = 1_000
PARTS = ["memory", "active", "stalls", "connects", "reload"]
RULES = 1_000
RELOAD_EVERY_S = 1
# Wireward keeps a new session's login for 5 s, to leave it to another.
SETTLED_S = 6
WARM_SESSIONS_MAX = 1_000
# Descriptors that pgbouncer needs for itself and for listening.
PEER_OWN_DESCRIPTORS = 200


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="1,000 idle and 50 active sessions, 3 s a run")
    parser.add_argument("--only", action="append", choices=PARTS, help="may be given more than once")
    parser.add_argument("--idle", type=int)
    parser.add_argument("--active", type=int)
    parser.add_argument("--seconds", type=float, help="length of one pgbench run (default 8)")
    parser.add_argument("--binary", help="measure this wireward instead of building one in release")
    chosen = parser.parse_args()
    chosen.idle = chosen.idle or (1_000 if chosen.quick else 9_000)
    chosen.active = chosen.active or (50 if chosen.quick else 1_000)
    chosen.seconds = chosen.seconds or (3 if chosen.quick else 8)
    chosen.only = chosen.only or PARTS
    return chosen


# The clients, in a process of their own: `storm.py hold MODE PORT USER DATABASE PASSWORD COUNT [tls]`.

async def read_until_ready(reader):
    while True:
        kind, length = struct.unpack("!ci", await reader.readexactly(5))
        body = await reader.readexactly(length - 4)
        if kind == b"E":
            raise SystemExit(f"refused: {body}")
        if kind == b"R" and body == struct.pack("!i", 3):
            return "password"
        if kind == b"Z":
            return "ready"


def untrusting():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def secured(port, context):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(struct.pack("!ii", 8, 80877103))
    if await reader.readexactly(1) != b"S":
        raise SystemExit("TLS is not served")
    await writer.start_tls(context)
    return reader, writer


async def enter(mode, port, user, database, password, context):
    reader, writer = await (secured(port, context) if context else asyncio.open_connection("127.0.0.1", port))
    if mode == "handshakes":
        writer.close()
        return None
    body = struct.pack("!i", 196608) + f"user\0{user}\0database\0{database}\0\0".encode()
    writer.write(struct.pack("!i", len(body) + 4) + body)
    if await read_until_ready(reader) == "password":
        writer.write(b"p" + struct.pack("!i", len(password) + 5) + password.encode() + b"\0")
        await read_until_ready(reader)
    query = lambda text: b"Q" + struct.pack("!i", len(text) + 5) + text + b"\0"
    if mode == "half":
        writer.write(query(b"select 1")[:7])
    elif mode == "unread":
        writer.transport.pause_reading()
        writer.write(query(b"select * from pgbench_accounts"))
    elif mode == "unanswered":
        writer.write(query(b"select 1"))
    else:
        writer.write(query(b"select 1"))
        await read_until_ready(reader)
    return reader, writer


async def hold(mode, port, user, database, password, count, with_tls):
    gate, context = asyncio.Semaphore(STRANGERS_AT_ONCE), untrusting() if with_tls else None
    if mode == "handshakes":
        sys.stdin.readline()

    async def one():
        async with gate:
            return await enter(mode, int(port), user, database, password, context)

    held = await asyncio.gather(*[one() for _ in range(int(count))])
    print("held", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    os._exit(0 if held else 1)


class Held:
    """A process with that many clients of a kind."""

    def __init__(self, mode, target, database, count, with_tls=False, wait=True):
        user = "demo" if target.name.startswith("wireward") else servers.USER
        command = [sys.executable, os.path.abspath(__file__), "hold", mode, str(target.port), user, database, target.password, str(count)]
        self.process = subprocess.Popen(command + ["tls"] * with_tls, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if wait:
            self.wait()

    def begin(self):
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def wait(self):
        if self.process.stdout.readline().strip() != "held":
            raise SystemExit("the clients were not all let in")

    def let_go(self):
        self.process.stdin.close()
        self.process.wait(60)


# What is measured.

def private_bytes(pid):
    with open(f"/proc/{pid}/smaps_rollup", encoding="utf-8") as rollup:
        return sum(int(line.split()[1]) * 1024 for line in rollup if line.startswith(("Private_Clean", "Private_Dirty")))


def start_standin(postgres, directory, name, *flags):
    port = servers.free_port()
    command = [sys.executable, os.path.join(HERE, "standin.py"), str(port), str(postgres.port), servers.PASSWORD, *flags]
    process, log = servers.start(command, directory, name)
    servers.wait_for(port, process, log)
    return process, port


def resource_section(name, port, directory):
    return (f'\n[[resource]]\nname = "{name}"\nprotocol = "postgres"\naddress = "127.0.0.1:{port}"\ndatabase = "{servers.DATABASE}"\n'
            f'user = "{servers.USER}"\ncredential = {{ file = "{directory}/upstream.password" }}\n')


def start_wireward(binary, postgres, directory, behind, active):
    """As `servers.start_wireward`, with more resources: the demonstration writes its files, and they are then amended."""
    policy = os.path.join(directory, "policy")
    shutil.copytree(os.path.join(HERE, "policy"), policy)
    names = ", ".join(f'"{name}"' for name in ["shop", *behind])
    text_file = os.path.join(policy, "bench.toml")
    with open(text_file, encoding="utf-8") as file:
        text = file.read().replace('resources = ["shop"]', f"resources = [{names}]")
    with open(text_file, "w", encoding="utf-8") as file:
        file.write(text)
    demo, target = servers.start_wireward("wireward", binary, postgres, directory, policy, "analyst")
    servers.stop(demo, signal.SIGINT)
    home = os.path.join(directory, "wireward")
    with open(os.path.join(home, "wireward.toml"), "a", encoding="utf-8") as file:
        file.write(f"\n[limits]\nlogin_timeout_s = 120.0\nmax_client_conn = 20000\nsessions_per_subject_max = 20000\nactive_sessions_max = {active}\nidle_upstreams_max = 16\n")
        file.write("".join(resource_section(*one, home) for one in behind.items()))
    process, log = servers.start([binary, "run", "--config", os.path.join(home, "wireward.toml")], directory, "wireward", cpu=1)
    servers.wait_for(target.port, process, log)
    pids = {"proxy": servers.find(process.pid, "dataplane"), "recorder": servers.find(process.pid, "recorder")}
    return process, servers.Target("wireward", target.port, target.password, pids)


class Context:
    def __init__(self, options, directory):
        self.options, self.directory, self.processes = options, directory, []

    def start(self):
        options, directory = self.options, self.directory
        binary = self.binary = options.binary or run.build_wireward()
        # pgbouncer keeps its own when its clients have gone.
        self.postgres = servers.Postgres(directory, connections=2 * options.active + 100)
        self.processes.append(self.postgres.process)
        idle, idle_port = start_standin(self.postgres, directory, "idle")
        deaf, deaf_port = start_standin(self.postgres, directory, "deaf", "--deaf")
        self.processes += [idle, deaf]
        process, self.wireward = start_wireward(binary, self.postgres, directory, {"idle": idle_port, "deaf": deaf_port},
                                                options.active)
        self.processes.append(process)
        home = os.path.join(directory, "wireward")
        process, self.pgbouncer = servers.start_pgbouncer(self.postgres, directory, idle_port=idle_port, home=home)
        self.processes.append(process)
        # Any core: what is compared runs beside what loads it.
        for target in (self.wireward, self.pgbouncer):
            target.pin(None)

    def stop(self):
        for process in reversed(self.processes):
            servers.stop(process, signal.SIGINT)


def pgbench(context, target, clients):
    return run.pgbench(context.postgres, target, clients, context.options.seconds, context.directory)


def idle_max(target, active):
    """How many idle sessions fit beside the active ones: wireward's sockets take no descriptors (Linux 6.15, io_uring)."""
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return descriptors if target.name == "wireward" else (descriptors - PEER_OWN_DESCRIPTORS) // 2 - active


def memory(context):
    rows = []
    for with_tls in (False, True):
        for target in (context.pgbouncer, context.wireward):
            idle = min(context.options.idle, idle_max(target, context.options.active))
            warm = min(WARM_SESSIONS_MAX, idle // 2)
            first = Held("idle", target, "idle", warm, with_tls)
            time.sleep(SETTLED_S)
            pid = target.processes["proxy"]
            before = private_bytes(pid)
            rest = Held("idle", target, "idle", idle - warm, with_tls)
            time.sleep(SETTLED_S)
            grown = private_bytes(pid) - before
            rows.append((target.name, "TLS" if with_tls else "plain", idle, grown / (idle - warm) / 1024))
            if "active" in context.options.only:
                rows[-1] += (pgbench(context, target, context.options.active),)
            first.let_go()
            rest.let_go()
    print("\n| proxy | idle sessions | | KiB a session | p50, p99 µs of the active ones beside them |\n|---|---|---|---|---|")
    for name, how, count, kib, *active in rows:
        beside = f"{active[0]['p50_us']:,}, {active[0]['p99_us']:,}" if active else ""
        print(f"| {name} | {count:,} | {how} | {kib:.2f} | {beside} |")


def active(context):
    print(f"\n{context.options.active:,} active sessions alone:")
    for target in (context.pgbouncer, context.wireward):
        found = pgbench(context, target, context.options.active)
        print(f"  {target.name}: {found['tps']:,.0f} TPS, p50 {found['p50_us']:,} µs, p99 {found['p99_us']:,} µs")


def stalls(context):
    count = min(200, context.options.idle)
    print(f"\np50, p99 and longest statement (µs) of 8 clients beside:")
    for target in (context.pgbouncer, context.wireward):
        slow = {
            "nothing": [],
            f"{count} half messages": [("half", "idle", False)],
            f"{count} results that nobody reads": [("unread", "shop" if target is context.wireward else servers.DATABASE, False)],
            f"{count} statements that the upstream never answers": [("unanswered", "deaf", False)],
            f"a storm of {HANDSHAKES:,} TLS handshakes": [("handshakes", "idle", True)],
        }
        if target is context.pgbouncer:
            slow = {what: who for what, who in slow.items() if not any(mode == "unanswered" for mode, *_ in who)}
        for what, who in slow.items():
            held = []
            for mode, database, with_tls in who:
                held.append(Held(mode, target, database, HANDSHAKES if mode == "handshakes" else count, with_tls, wait=mode != "handshakes"))
                if mode == "handshakes":
                    held[-1].begin()
            found = pgbench(context, target, 8)
            print(f"  {target.name}, {what}: {found['p50_us']:,}, {found['p99_us']:,}, {found['max_us']:,} ({found['tps']:,.0f} TPS)")
            for one in held:
                one.let_go()


def connects(context):
    """A new connection with a token for every statement, by TLS, as agents make them."""
    script = os.path.join(context.directory, "one.sql")
    with open(script, "w", encoding="utf-8") as file:
        file.write("select 1;\n")
    print("\n8 clients, each statement on a TLS connection of its own:")
    for behind in ("idle", None):
        for target in (context.pgbouncer, context.wireward):
            environment = dict(target.environment(), PGSSLMODE="require")
            if behind:
                environment["PGDATABASE"] = behind
            command = [f"{context.postgres.binaries}/pgbench", "-C", "-n", "-c", "8", "-j", "1", "-f", script, "-T",
                       f"{context.options.seconds:g}"]

            def work():
                done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
                found = re.search(r"actually processed: (\d+)", done.stdout)
                if done.returncode or not found:
                    raise SystemExit(f"pgbench -C through {target.name} failed:\n{done.stdout}{done.stderr}")
                return int(found.group(1))

            count, cpu = run.measured(target, work)
            each_us = sum(cpu["proxy"]) / count * 1e6
            print(f"  {target.name}, {'the stand-in' if behind else 'PostgreSQL'} behind it: {count / context.options.seconds:,.0f} "
                  f"connections a second, {each_us:,.0f} µs of the proxy's CPU each")


def policy_of_rules(context, number):
    """The policy of the benches and many rules more; two of them differ in the rules' names."""
    directory = os.path.join(context.directory, f"policy-{number}")
    shutil.copytree(os.path.join(context.directory, "policy"), directory)
    with open(os.path.join(directory, "rules.toml"), "w", encoding="utf-8") as file:
        for rule in range(RULES):
            file.write(f'[[rule]]\nname = "rule-{number}-{rule}"\naction = "block"\nto = ["analyst"]\neffects = ["insert"]\n'
                       f'relations = ["table_{rule}"]\n')
    bundle = os.path.join(context.directory, f"{number}.bundle")
    subprocess.run([context.binary, "policy", "build", directory, "-o", bundle], check=True, stdout=subprocess.DEVNULL)
    return bundle


def reload(context):
    bundles, in_force = [policy_of_rules(context, number) for number in (1, 2)], os.path.join(context.directory, "wireward", "policy.bundle")
    stop, times = threading.Event(), [0]

    def exchange():
        shutil.copy(bundles[times[0] % 2], in_force + ".new")
        os.rename(in_force + ".new", in_force)
        times[0] += 1

    def keep_reloading():
        while not stop.wait(RELOAD_EVERY_S):
            exchange()

    exchange()
    time.sleep(2)
    for clients in (8, context.options.active):
        print(f"\n{clients:,} clients while a policy of {RULES:,} rules is exchanged every {RELOAD_EVERY_S} s:")
        quiet = pgbench(context, context.wireward, clients)
        limit_us = 2 * quiet["p99_us"]
        slower = lambda found: f"{found['above'](limit_us):,} of {found['transactions']:,} statements took longer than {limit_us:,} µs"
        print(f"  without: p50 {quiet['p50_us']:,} µs, p99 {quiet['p99_us']:,} µs, longest {quiet['max_us']:,} µs, {slower(quiet)}")
        stop.clear()
        before, reloading = times[0], threading.Thread(target=keep_reloading)
        reloading.start()
        found = pgbench(context, context.wireward, clients)
        stop.set()
        reloading.join()
        print(f"  {times[0] - before} reloads: p50 {found['p50_us']:,} µs, p99 {found['p99_us']:,} µs "
              f"({found['p99_us'] / quiet['p99_us']:.2f} of it without), longest {found['max_us']:,} µs, {slower(found)}, no statement failed")


def main():
    if sys.argv[1:2] == ["hold"]:
        mode, port, user, database, password, count, *with_tls = sys.argv[2:]
        return asyncio.run(hold(mode, port, user, database, password, count, bool(with_tls)))
    options = arguments()
    run.install_missing()
    directory = tempfile.mkdtemp(prefix="wireward-storm-")
    os.chmod(directory, 0o755)
    # A time limit ends what was started, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    context = Context(options, directory)
    try:
        context.start()
        for name in options.only:
            {"memory": memory, "active": active, "stalls": stalls, "connects": connects, "reload": reload}[name](context)
    finally:
        context.stop()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
