"""One cell of the table, all targets at once: their pgbenches are logged in together and take turns of a fifth of a second.

A guest's speed drifts by a fifth within seconds, so what is measured one after the other cannot be compared. Here every target has
its part of every second. Who is not on turn is stopped (SIGSTOP). Only the time and the transactions of turns count: no login, no
idle time.
"""

import math
import os
import re
import signal
import subprocess
import time

import run

TURN_S = 0.2
# After a turn the statements in flight come to their end before the CPU time is read.
SETTLE_S = 0.01


class Runner:
    """A pgbench that is stopped but when it has its turn."""

    def __init__(self, postgres, target, protocol, clients, core, ends_at, directory):
        self.target, self.protocol, self.clients = target, protocol, clients
        self.directory = os.path.join(directory, f"turns-{target.name}")
        os.makedirs(self.directory, exist_ok=True)
        command = [f"{postgres.binaries}/pgbench", "-S", "-n", "-j", "1", "-P", "1", "-M", "prepared" if protocol == "tls" else protocol,
                   "-c", str(clients), "-T", str(max(math.ceil(ends_at - time.monotonic()), 2))]
        if clients == 1:
            command += ["-l", "--log-prefix", os.path.join(self.directory, "latency")]
        self.process = subprocess.Popen(run.on_core(core, command), env=target.environment(with_tls=protocol == "tls"), text=True,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
        self.told = []
        # All are logged in, and warm, when the first second is told.
        progress = None
        while progress is None:
            line = self.process.stderr.readline()
            if not line:
                raise SystemExit(f"pgbench through {target.name} failed:\n{''.join(self.told)}")
            self.told.append(line)
            progress = re.match(r"progress: ([\d.]+) s, ([\d.]+) tps", line)
        self.process.send_signal(signal.SIGSTOP)
        self.warmed = float(progress.group(1)) * float(progress.group(2))
        self.turns_s, self.turns = [], []

    def turn(self):
        before, started = spent(self.target), time.monotonic()
        self.process.send_signal(signal.SIGCONT)
        time.sleep(TURN_S)
        self.process.send_signal(signal.SIGSTOP)
        self.turns_s.append(time.monotonic() - started)
        time.sleep(SETTLE_S)
        after = spent(self.target)
        self.turns.append({label: [b - a for a, b in zip(before[label], after[label])] for label in before})

    def row(self, placement):
        """Lets it come to its end, and gives its row."""
        self.process.send_signal(signal.SIGCONT)
        output, errors = self.process.communicate()
        found = re.search(r"actually processed: (\d+)", output)
        if self.process.returncode or not found:
            raise SystemExit(f"pgbench through {self.target.name} failed:\n{''.join(self.told)}{errors}{output}")
        count = int(found.group(1)) - self.warmed
        seconds = sum(self.turns_s)
        row = {"placement": placement, "shape": self.protocol, "clients": self.clients, "target": self.target.name,
               "tps": count / seconds, "avg_us": self.clients * seconds / count * 1e6, **run.percentiles(self.directory)}
        total = {label: [sum(turn[label][n] for turn in self.turns) for n in range(4)] for label in self.target.processes}
        if "proxy" in total:
            cpu_ns, user, system, sleeps = total["proxy"]
            row["cpu_us"], row["sleeps"] = cpu_ns / count / 1e3, sleeps / count
            row["user_us"] = row["cpu_us"] * user / ((user + system) or 1)
        if "recorder" in total:
            row["recorder_us"] = total["recorder"][0] / count / 1e3
        return row


def spent(target):
    """For each process of a target: nanoseconds on a CPU, seconds of user and of system time (by ticks), and how often it went to sleep."""
    result = {}
    for label, pid in target.processes.items():
        nanoseconds = 0
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/schedstat", encoding="utf-8") as schedstat:
                nanoseconds += int(schedstat.read().split()[0])
        result[label] = [nanoseconds, *run.cpu_seconds(pid), run.sleeps(pid)]
    return result


def rows(context, targets, placement, protocol, clients):
    """A row for each target."""
    targets = [target for target in targets if protocol != "tls" or target.has_tls]
    pinned = placement == "pinned"
    core = 0 if pinned else None
    context.postgres.pin(core)
    # A second and more until the last is logged in and warm.
    turns = max(round(context.options.seconds / TURN_S), 2)
    ends_at = time.monotonic() + len(targets) * (1.3 + clients / 100 + turns * (TURN_S + 2 * SETTLE_S)) + 1
    runners = []
    for target in targets:
        target.pin({"proxy": 1, "recorder": 0} if pinned else None)
        runners.append(Runner(context.postgres, target, protocol, clients, core, ends_at, context.directory))
    for number in range(turns):
        # Each is the first as often as any other, and none has two turns in a row.
        first = number % len(runners)
        for runner in runners[first:] + runners[:first]:
            runner.turn()
    # Then each finds its time over at once. (Its clock began after its start was asked for.)
    left_s = ends_at - time.monotonic()
    if left_s < 0:
        raise SystemExit(f"the turns took {-left_s:.1f} s longer than planned: the machine is too busy to measure on")
    time.sleep(left_s + 1)
    return [runner.row(placement) for runner in runners]
