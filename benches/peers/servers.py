"""Starts and stops what is compared: PostgreSQL, pgbouncer, HAProxy and wireward, each on a port of its own."""

import json
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import time

USER, PASSWORD, DATABASE = "bench", "bench-password", "bench"


def free_port():
    """None of those that the kernel gives to outgoing connections: one of thousands could take it before the server does."""
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="utf-8") as limits:
        given_from = int(limits.read().split()[0])
    for port in random.sample(range(16_384, max(given_from, 16_384)), min(64, max(given_from - 16_384, 0))) + [0]:
        try:
            with socket.create_server(("127.0.0.1", port)) as listener:
                return listener.getsockname()[1]
        except OSError:
            pass
    raise SystemExit("no port of 127.0.0.1 is free")


def wait_for(port, process, log):
    for _ in range(300):
        if process.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    with open(log, encoding="utf-8", errors="replace") as text:
        raise SystemExit(f"{log}: nothing listens on port {port}\n{text.read()[-2000:]}")


def as_user(name, command):
    """PostgreSQL and pgbouncer refuse to run as root."""
    if os.geteuid() != 0:
        return command
    account = pwd.getpwnam(name)
    return ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups", *command]


def start(command, directory, name, cpu=None):
    log = os.path.join(directory, f"{name}.log")
    pinned = ["taskset", "-c", str(cpu)] if cpu is not None else []
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [*pinned, *command], stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd="/", start_new_session=True
        )
    return process, log


def stop(process, how=signal.SIGTERM):
    if process.poll() is None:
        process.send_signal(how)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def postgres_binaries():
    root = "/usr/lib/postgresql"
    majors = sorted((int(name) for name in os.listdir(root) if name.isdigit() and int(name) <= 18), reverse=True)
    found = [f"{root}/{major}/bin" for major in majors if os.path.exists(f"{root}/{major}/bin/postgres")]
    if not found:
        raise SystemExit("no PostgreSQL server in /usr/lib/postgresql; apt-get install postgresql")
    return found[0]


class Target:
    """Something to measure: where to connect, with which password, and the processes whose CPU time counts."""

    def __init__(self, name, port, password, processes, has_tls=False):
        self.name, self.port, self.password, self.processes, self.has_tls = name, port, password, processes, has_tls

    def environment(self, with_tls=False):
        # `wireward demo` names its resource shop and its user demo, whatever database is behind.
        user, database = ("demo", "shop") if self.name.startswith("wireward") else (USER, DATABASE)
        return dict(os.environ, PGHOST="127.0.0.1", PGPORT=str(self.port), PGUSER=user, PGDATABASE=database,
                    PGPASSWORD=self.password, PGSSLMODE="require" if with_tls else "disable")

    def pin(self, cores):
        """`cores`: label of a process to its core, or None to let all of them run anywhere."""
        everywhere = f"0-{os.cpu_count() - 1}"
        for label, pid in self.processes.items():
            core = str(cores[label]) if cores else everywhere
            subprocess.run(["taskset", "-a", "-p", "-c", core, str(pid)], check=True, stdout=subprocess.DEVNULL)


class Postgres:
    def __init__(self, directory, connections=600):
        self.binaries = postgres_binaries()
        self.port = free_port()
        data = os.path.join(directory, "pg")
        os.makedirs(data)
        if os.geteuid() == 0:
            shutil.chown(data, "postgres", "postgres")
        first = os.path.join(directory, "first-password")
        with open(first, "w", encoding="utf-8") as file:
            file.write(PASSWORD)
        initdb = [f"{self.binaries}/initdb", "-D", data, "-A", "scram-sha-256", "--pwfile", first, "-U", "postgres", "--no-sync",
                  "--locale=C", "-E", "UTF8"]
        subprocess.run(as_user("postgres", initdb), check=True, stdout=subprocess.DEVNULL, cwd="/")
        settings = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off", "full_page_writes=off",
                    "synchronous_commit=off", f"max_connections={connections}", "shared_buffers=512MB", "autovacuum=off"]
        command = [f"{self.binaries}/postgres", "-D", data, "-p", str(self.port)]
        for setting in settings:
            command += ["-c", setting]
        self.process, log = start(as_user("postgres", command), directory, "postgres")
        wait_for(self.port, self.process, log)
        self.sql("postgres", f"create role {USER} login superuser password '{PASSWORD}'")
        self.sql("postgres", f"create database {DATABASE} owner {USER}")
        direct = Target("direct", self.port, PASSWORD, {})
        subprocess.run([f"{self.binaries}/pgbench", "-i", "-s", "10", "-q"], env=direct.environment(), check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def sql(self, database, text):
        for _ in range(100):
            done = subprocess.run([f"{self.binaries}/psql", "-XAtq", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres",
                                   "-d", database, "-c", text], env=dict(os.environ, PGPASSWORD=PASSWORD),
                                  capture_output=True, text=True, check=False)
            if "starting up" not in done.stderr:
                break
            time.sleep(0.05)
        if done.returncode:
            raise SystemExit(done.stderr)

    def pin(self, core):
        """New backends inherit the postmaster's cores."""
        cores = str(core) if core is not None else f"0-{os.cpu_count() - 1}"
        subprocess.run(["taskset", "-a", "-p", "-c", cores, str(self.process.pid)], check=True, stdout=subprocess.DEVNULL)


def start_pgbouncer(postgres, directory, idle_port=None, home=None):
    """`idle_port`: where a stand-in holds idle sessions; `home`: where wireward's certificate is, to serve the same."""
    more = f"idle = host=127.0.0.1 port={idle_port} dbname={DATABASE}\n" if idle_port else ""
    tls = ""
    if home:
        for name in ("server.pem", "server.key"):
            shutil.copy(os.path.join(home, name), directory)
            os.chmod(os.path.join(directory, name), 0o644)
        tls = f"client_tls_sslmode = allow\nclient_tls_cert_file = {directory}/server.pem\nclient_tls_key_file = {directory}/server.key\n"
    port = free_port()
    config = os.path.join(directory, "pgbouncer.ini")
    with open(config, "w", encoding="utf-8") as file:
        file.write(f"""[databases]
{DATABASE} = host=127.0.0.1 port={postgres.port} dbname={DATABASE}
{more}[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {directory}/users.txt
pool_mode = session
max_client_conn = {20_000 if idle_port else 500}
sessions_per_subject_max = {20_000 if idle_port else 500}
default_pool_size = {10_000 if idle_port else 250}
ignore_startup_parameters = extra_float_digits
{tls}""")
    with open(os.path.join(directory, "users.txt"), "w", encoding="utf-8") as file:
        file.write(f'"{USER}" "{PASSWORD}"\n')
    process, log = start(as_user("postgres", ["pgbouncer", config]), directory, "pgbouncer")
    wait_for(port, process, log)
    return process, Target("pgbouncer", port, PASSWORD, {"proxy": process.pid}, has_tls=home is not None)


def start_haproxy(postgres, directory):
    port = free_port()
    config = os.path.join(directory, "haproxy.cfg")
    with open(config, "w", encoding="utf-8") as file:
        file.write(f"""global
    nbthread 1
    maxconn 1000
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
listen postgres
    bind 127.0.0.1:{port}
    server upstream 127.0.0.1:{postgres.port}
""")
    process, log = start(["haproxy", "-db", "-f", config], directory, "haproxy")
    wait_for(port, process, log)
    return process, Target("haproxy", port, PASSWORD, {"proxy": process.pid})


def start_wireward(name, binary, postgres, directory, policy, role):
    """`wireward demo` before the bench database: identity, policy, masking and recording are all on."""
    home = os.path.join(directory, name)
    port = free_port()
    dsn = f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{postgres.port}/{DATABASE}"
    command = [binary, "demo", "--dir", home, "--upstream", dsn, "--port", str(port), "--policy", policy]
    # One CPU gives one shard, as the peers have one thread each; where it may run is decided for each measurement.
    process, log = start(command, directory, name, cpu=1)
    wait_for(port, process, log)
    environment = os.path.join(home, "env")
    while not os.path.exists(environment):
        time.sleep(0.05)
    with open(environment, encoding="utf-8") as lines:
        rows = dict(line.removeprefix("export ").strip().split("=", 1) for line in lines)
    token = rows[f"{role.upper()}_TOKEN"].strip("'")
    processes = {"proxy": find(process.pid, "dataplane"), "recorder": find(process.pid, "recorder")}
    return process, Target(name, port, token, processes, has_tls=True)


def find(root, word):
    """The descendant of `root` whose command line holds `wireward <word>` or whose title says so."""
    parents = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", encoding="utf-8") as stat:
                parents[int(name)] = int(stat.read().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
    family, grew = {root}, True
    while grew:
        more = {pid for pid, parent in parents.items() if parent in family} - family
        family, grew = family | more, bool(more)
    titles = {}
    for pid in sorted(family):
        with open(f"/proc/{pid}/cmdline", "rb") as cmdline, open(f"/proc/{pid}/comm", encoding="utf-8") as comm:
            titles[pid] = cmdline.read().replace(b"\0", b" ").decode(errors="replace") + comm.read()
    found = [pid for pid, title in titles.items() if f"wireward {word}" in title or title.rstrip().endswith(word)]
    if not found:
        raise SystemExit(f"no process 'wireward {word}' below {root}: {json.dumps(titles, indent=1)}")
    return found[0]
