#!/usr/bin/env python3
"""Wireward beside pgbouncer and HAProxy, on this machine, in one interleaved run.

TL;DR:  benches/peers/run.py --quick            every shape once, 2 s each
        benches/peers/run.py                    three rounds of 5 s, medians: about an hour
        benches/peers/run.py --only pinned      one placement only (pinned, unpinned, bulk)

CPU is user + system time of the proxy's process (all its threads) from /proc/PID/stat, per transaction or per GB. Only ratios
inside one run mean anything. Pinned: the proxy alone on core 1; client, server and wireward's recorder on core 0.
"""

import argparse
import bisect
import collections
import csv
import datetime
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import servers
import slices

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# The last is the prepared one over TLS.
PROTOCOLS = ["simple", "extended", "prepared", "tls"]
CLIENTS = [1, 8, 32, 64]
BULK = "select n, 'user ' || n || ' wrote some ordinary text here', md5(n::text), n * 1.5 from generate_series(1, {rows}) n"
# Bytes of one row of BULK, about. COPY counts the real ones at the client; SELECT is charged for the wish.
BULK_ROW_BYTES = 95
FIELDS = ["placement", "shape", "clients", "target", "tps", "cpu_us", "user_us", "sleeps", "recorder_us", "avg_us", "p50_us", "p99_us", "cpu_s_per_gb",
          "recorder_s_per_gb"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of 2 s, clients 1 and 32, 200 MB of bulk")
    parser.add_argument("--only", action="append", choices=["pinned", "unpinned", "bulk"], help="may be given more than once")
    parser.add_argument("--seconds", type=float, help="length of one pgbench run (default 5)")
    parser.add_argument("--rounds", type=int, help="how often each run is repeated (default 3)")
    parser.add_argument("--protocol", action="append", choices=PROTOCOLS)
    parser.add_argument("--clients", action="append", type=int)
    parser.add_argument("--bulk-mb", type=int, help="size of a bulk result (default 1000)")
    parser.add_argument("--no-wireward", action="store_true", help="only direct, pgbouncer and HAProxy")
    parser.add_argument("--binary", action="append", help="measure this wireward instead of building one in release; two or more are "
                        "measured beside each other")
    parser.add_argument("--policy", default=os.path.join(HERE, "policy"), help="a policy directory for wireward")
    parser.add_argument("--role", default="analyst", choices=["dba", "analyst", "agent"], help="whose token wireward gets")
    chosen = parser.parse_args()
    chosen.seconds = chosen.seconds or (2 if chosen.quick else 5)
    chosen.rounds = chosen.rounds or (1 if chosen.quick else 3)
    chosen.protocol = chosen.protocol or PROTOCOLS
    chosen.clients = chosen.clients or ([1, 32] if chosen.quick else CLIENTS)
    chosen.bulk_mb = chosen.bulk_mb or (200 if chosen.quick else 1000)
    chosen.only = chosen.only or ["pinned", "unpinned", "bulk"]
    return chosen


def install_missing():
    packages = [name for name in ("pgbouncer", "haproxy") if not shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin")]
    if packages:
        sudo = [] if os.geteuid() == 0 else ["sudo"]
        subprocess.run([*sudo, "apt-get", "install", "-y", "--no-install-recommends", *packages], check=True)
    os.environ["PATH"] += ":/usr/sbin"


def build_wireward():
    target = os.environ.setdefault("CARGO_TARGET_DIR", os.path.expanduser("~/.cache/wireward/target"))
    subprocess.run(["cargo", "build", "--release", "-p", "dataplane"], cwd=ROOT, check=True)
    return os.path.join(target, "release", "wireward")


def cpu_seconds(pid):
    """User and system time of a process, all threads, in seconds."""
    with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return int(fields[11]) / TICKS_PER_S, int(fields[12]) / TICKS_PER_S


def sleeps(pid):
    """How often the threads of a process have gone to sleep: what wakes them costs more than what they do."""
    total = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/status", encoding="utf-8") as status:
            total += int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", status.read(), re.M).group(1))
    return total


def measured(target, work):
    """Runs `work`; returns its result and for each process of the target the user and system seconds it took."""
    take = lambda: {label: cpu_seconds(pid) for label, pid in target.processes.items()}
    before = take()
    result = work()
    after = take()
    return result, {label: tuple(b - a for a, b in zip(before[label], after[label])) for label in before}


def on_core(core, command):
    return command if core is None else ["taskset", "-c", str(core), *command]


def pgbench(postgres, target, clients, seconds, directory):
    """Known statements through one target, on any core, with the time of each."""
    command = [f"{postgres.binaries}/pgbench", "-S", "-n", "-j", "1", "-M", "prepared", "-c", str(clients), "-T", f"{seconds:g}",
               "-l", "--log-prefix", os.path.join(directory, "latency")]
    done = subprocess.run(command, env=target.environment(), capture_output=True, text=True, check=False)
    found = re.search(r"actually processed: (\d+)", done.stdout)
    # It gives no rate if the logins alone took all the time.
    if done.returncode or not found or "tps = " not in done.stdout:
        raise SystemExit(f"pgbench through {target.name} failed:\n{done.stdout}{done.stderr}")
    return {
        "transactions": int(found.group(1)),
        "tps": float(re.search(r"tps = ([\d.]+)", done.stdout).group(1)),
        "avg_us": 1000 * float(re.search(r"latency average = ([\d.]+) ms", done.stdout).group(1)),
        **percentiles(directory),
    }


def percentiles(directory):
    """From pgbench's log of every transaction (third field: microseconds) but each client's first and last; the log is removed.

    The first finds the server's caches cold and is prepared; the last runs while other clients leave and their backends end. With
    a thousand clients these alone would be the 99th percentile.
    """
    clients = collections.defaultdict(list)
    for name in os.listdir(directory):
        if name.startswith("latency."):
            path = os.path.join(directory, name)
            with open(path, encoding="utf-8") as log:
                for line in log:
                    client, _, microseconds = line.split()[:3]
                    clients[client].append(int(microseconds))
            os.remove(path)
    values = [value for of_client in clients.values() for value in of_client[1:-1]]
    if not values:
        return {}
    values.sort()
    return {"p50_us": values[len(values) // 2], "p99_us": values[len(values) * 99 // 100], "max_us": values[-1],
            "above": lambda limit_us: len(values) - bisect.bisect_right(values, limit_us)}


def bulk_run(context, target, shape):
    target.pin({"proxy": 1, "recorder": 0} if os.cpu_count() > 1 else None)
    context.postgres.pin(0)
    query = BULK.format(rows=context.options.bulk_mb * 1_000_000 // BULK_ROW_BYTES)
    statement = f"copy ({query}) to stdout" if shape == "copy" else query
    # A forward-only cursor of psql would change the protocol: FETCH_COUNT stays 0 and psql holds the result.
    command = on_core(0, [f"{context.postgres.binaries}/psql", "-XAtq", "-o", "/dev/null", "-c", statement])
    if shape == "copy":
        command = on_core(0, [f"{context.postgres.binaries}/psql", "-XAtq", "-c", statement])

    def work():
        start = time.monotonic()
        output = subprocess.Popen(command, env=target.environment(), stdout=subprocess.PIPE if shape == "copy" else None)
        length = sum(iter(lambda: len(output.stdout.read(1 << 20)), 0)) if shape == "copy" else 0
        if output.wait():
            raise SystemExit(f"psql through {target.name} failed")
        return length, time.monotonic() - start

    (length, seconds), cpu = measured(target, work)
    gigabytes = (length or context.options.bulk_mb * 1_000_000) / 1e9
    row = {"placement": "bulk", "shape": shape, "clients": 1, "target": target.name, "tps": gigabytes * 1000 / seconds}
    for label, column in (("proxy", "cpu_s_per_gb"), ("recorder", "recorder_s_per_gb")):
        if label in cpu:
            row[column] = sum(cpu[label]) / gigabytes
    return row


class Context:
    """Everything that runs, and how to end it."""

    def __init__(self, options, directory):
        self.options, self.directory = options, directory
        self.processes = []
        binaries = [] if options.no_wireward else options.binary or [build_wireward()]
        self.postgres = servers.Postgres(directory)
        self.processes.append(self.postgres.process)
        self.targets = [servers.Target("direct", self.postgres.port, servers.PASSWORD, {})]
        gateways = []
        for number, binary in enumerate(binaries):
            name = "wireward" if number == 0 else f"wireward-{number + 1}"
            gateways.append(servers.start_wireward(name, binary, self.postgres, directory, options.policy, options.role))
        # Both serve the same certificate.
        home = os.path.join(directory, "wireward") if gateways else None
        self.add(servers.start_pgbouncer(self.postgres, directory, home=home))
        self.add(servers.start_haproxy(self.postgres, directory))
        for started in gateways:
            self.add(started)

    def add(self, started):
        process, target = started
        self.processes.append(process)
        self.targets.append(target)

    def stop(self):
        for process in reversed(self.processes):
            servers.stop(process, signal.SIGINT)


def plan(options):
    """Every cell of the table: a call gives the rows of its targets."""
    for placement in ("pinned", "unpinned"):
        if placement in options.only:
            for protocol in options.protocol:
                for clients in options.clients:
                    yield lambda context, cell=(placement, protocol, clients): slices.rows(context, context.targets, *cell)
    if "bulk" in options.only:
        for shape in ("copy", "select"):
            yield lambda context, shape=shape: [bulk_run(context, target, shape) for target in context.targets]


def measure(context):
    rows = []
    cells = list(plan(context.options))
    for round_ in range(context.options.rounds):
        for number, cell in enumerate(cells):
            measured_rows = cell(context)
            rows += measured_rows
            first = measured_rows[0]
            print(f"round {round_ + 1}, cell {number + 1} of {len(cells)}: {first['placement']} {first['shape']} {first['clients']}",
                  file=sys.stderr)
    return rows


def medians(rows):
    groups = {}
    for row in rows:
        groups.setdefault((row["placement"], row["shape"], row["clients"], row["target"]), []).append(row)
    result = []
    for key, members in groups.items():
        middle = dict(zip(FIELDS, key))
        for field in FIELDS[4:]:
            values = [member[field] for member in members if field in member]
            if values:
                middle[field] = statistics.median(values)
        result.append(middle)
    return result


def ratio(row, table, peer, field):
    other = next((o for o in table if o["target"] == peer and all(o[k] == row[k] for k in FIELDS[:3])), None)
    if not other or row["target"] == peer or not row.get(field) or not other.get(field):
        return ""
    return f"{row[field] / other[field]:.2f}"


def number(row, field, digits=0):
    return f"{row[field]:,.{digits}f}" if field in row else ""


def markdown(table):
    lines = []
    for placement in ("pinned", "unpinned"):
        rows = [row for row in table if row["placement"] == placement]
        if rows:
            lines += ["", f"**{placement}**, pgbench -S", "",
                      "| protocol, clients | target | TPS | CPU µs/tx | of it user | sleeps/tx | recorder µs/tx | avg µs | p50 µs | p99 µs "
                      "| CPU / pgbouncer | CPU / HAProxy | p50 / pgbouncer | p99 / pgbouncer |", "|" + "---|" * 14]
        for row in rows:
            lines.append("| " + " | ".join([
                f"{row['shape']}, {row['clients']}", row["target"], number(row, "tps"), number(row, "cpu_us", 1), number(row, "user_us", 1), number(row, "sleeps", 2),
                number(row, "recorder_us", 1), number(row, "avg_us"), number(row, "p50_us"), number(row, "p99_us"),
                ratio(row, table, "pgbouncer", "cpu_us"), ratio(row, table, "haproxy", "cpu_us"),
                ratio(row, table, "pgbouncer", "p50_us"), ratio(row, table, "pgbouncer", "p99_us")]) + " |")
    bulk = [row for row in table if row["placement"] == "bulk"]
    if bulk:
        lines += ["", "**bulk**, one client, pinned", "", "| shape | target | MB/s | CPU s/GB | recorder s/GB | CPU / pgbouncer | CPU / HAProxy |",
                  "|" + "---|" * 7]
    for row in bulk:
        lines.append("| " + " | ".join([
            row["shape"], row["target"], number(row, "tps"), number(row, "cpu_s_per_gb", 2), number(row, "recorder_s_per_gb", 2),
            ratio(row, table, "pgbouncer", "cpu_s_per_gb"), ratio(row, table, "haproxy", "cpu_s_per_gb")]) + " |")
    return "\n".join(lines)


def cpu_name():
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        name = next((line.split(":", 1)[1] for line in info if line.startswith("model name")), os.uname().machine)
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def write_csv(table):
    directory = os.path.join(ROOT, "benches", "record", cpu_name())
    os.makedirs(directory, exist_ok=True)
    day = datetime.date.today().isoformat()
    names = [f"{day}.csv", *(f"{day}-{number}.csv" for number in range(2, 100))]
    # A record is never written over: a second run of a day gets a number.
    path = next(path for path in (os.path.join(directory, name) for name in names) if not os.path.exists(path))
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        for row in table:
            writer.writerow({field: f"{value:.3f}" if isinstance(value, float) else value for field, value in row.items()})
    return path


def main():
    options = arguments()
    if "pinned" in options.only and os.cpu_count() < 2:
        raise SystemExit("pinned runs need two cores; use --only unpinned")
    install_missing()
    directory = tempfile.mkdtemp(prefix="wireward-peers-")
    os.chmod(directory, 0o755)
    context = None
    try:
        context = Context(options, directory)
        table = medians(measure(context))
    finally:
        if context:
            context.stop()
        shutil.rmtree(directory, ignore_errors=True)
    print(markdown(table))
    print(f"\n{options.rounds} rounds of {options.seconds:g} s, medians; written to {write_csv(table)}")


if __name__ == "__main__":
    main()
