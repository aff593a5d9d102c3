"""Runs statements on a server that pgaudit watches, and holds what it reports against what the analysis predicts.

    run.py STATEMENTS        a third from PostgreSQL's files, a third from sqlsmith, a third are changed ones of both

A miss is: something ran, and its class, its command or its object is not within the prediction. It is printed with the statement."""

import csv
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "corpus"))

from statements import mutations, regression, sqlsmith
from wire import Session, errors, fields_of, query, report_of

STATEMENT_MAX_MS = 1500
SEED = 20261130
# What would end the server, the database or the test itself.
LEFT_OUT = re.compile(
    r"pg_terminate_backend|pg_sleep|alter\s+system|drop\s+database|pg_promote|checkpoint|pgaudit|\bprogram\b|alter\s+(role|user)\s+\"?postgres"
    r"|set\s+session\s+authorization|pg_reload_conf|statement_timeout|client_min_messages|pg_rotate|reindex\s+(database|system)|\bset\s+role\b"
    r"|alter\s+database|log_statement|pg_cancel_backend|pg_stat_reset|session_preload",
    re.I,
)
# By class and command of pgaudit: effects of which one must be predicted. Other commands of a class need those of the class.
NEEDS = {
    "READ": {"read"},
    "WRITE": {"insert", "update", "delete", "truncate"},
    "DDL": {"ddl", "dcl", "admin"},
    "ROLE": {"dcl", "ddl"},
    "FUNCTION": {"call", "dynamic"},
    "MISC": {"session", "transaction", "admin", "lock", "listen", "notify", "read", "file", "ddl", "dcl", "dynamic"},
}
VERBS = {"INSERT": "insert", "UPDATE": "update", "DELETE": "delete", "TRUNCATE TABLE": "truncate", "LOCK TABLE": "lock", "VACUUM": "admin", "DO": "dynamic", "LOAD": "file"}
# Nobody knows what these do; a policy that lets them pass has been told so.
UNBOUND = {"call", "dynamic", "opaque"}
DESCRIPTIONS = {"pg_catalog.pg_description", "pg_catalog.pg_shdescription", "pg_catalog.pg_class"}
WRITES = {"insert", "update", "delete", "truncate"}
# What a relation reads or writes by its definition: views and rules, row security, inheritance, foreign keys.
BELOW = """
with recursive below(o) as (
    select c.oid from pg_class c where c.relname = any (string_to_array({names}, E'\\x01'))
    union
    select x.o from below b, lateral (
        select d.refobjid as o from pg_depend d join pg_rewrite r on r.oid = d.objid
            where d.classid = 'pg_rewrite'::regclass and r.ev_class = b.o and d.refclassid = 'pg_class'::regclass
        union all select d.refobjid from pg_depend d join pg_policy p on p.oid = d.objid
            where d.classid = 'pg_policy'::regclass and p.polrelid = b.o and d.refclassid = 'pg_class'::regclass
        union all select inhrelid from pg_inherits where inhparent = b.o
        union all select confrelid from pg_constraint where conrelid = b.o and contype = 'f'
        union all select conrelid from pg_constraint where confrelid = b.o and contype = 'f'
    ) x
)
select relname from below join pg_class on oid = o"""


class Server:
    def __init__(self, database):
        self.login = {"port": int(os.environ["SERVER_PORT"]), "database": database, "user": "postgres", "password": os.environ["SUPERUSER_PASSWORD"]}
        self.session = None

    def ask(self, sql):
        """What came back. A session that has ended is made again."""
        if self.session is None or self.session.ended is not None:
            self.session = Session(**self.login)
            self.ask(f"set statement_timeout = {STATEMENT_MAX_MS}")
        self.session.received = []
        self.session.send(query(sql))
        self.session.until_ready()
        return self.session.received

    def names_below(self, relations):
        listed = "'" + "\x01".join(sorted(relations)).replace("'", "''") + "'"
        received = self.ask(BELOW.format(names=listed))
        return {fields_of(payload)[0].decode() for kind, payload in received if kind == b"D"}

    def is_failed(self):
        last = self.session.received[-1:] if self.session else []
        return bool(last) and last[0] == (b"Z", b"E")


class Analysis:
    """The analysis of the gateway, a line a statement. What a session has prepared is remembered by name."""

    def __init__(self):
        self.process = subprocess.Popen([os.environ["ANALYSE"], "15"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.prepared = {}

    def of(self, sql):
        self.process.stdin.write(json.dumps(sql) + "\n")
        self.process.stdin.flush()
        predicted = json.loads(self.process.stdout.readline())
        if "error" in predicted:
            return None
        for statement in list(predicted):
            if statement["defines"]:
                self.prepared[statement["defines"]] = statement
            if statement["uses"] in self.prepared:
                predicted.append(self.prepared[statement["uses"]])
        return predicted


def audited(received):
    """The reports of pgaudit: class, command, kind and name of the object, and the text that they are about."""
    for kind, payload in received:
        told = report_of(payload).get("M", "") if kind == b"N" else ""
        if told.startswith("AUDIT: SESSION,"):
            fields = next(csv.reader([told.replace("\n", " ")]))
            yield fields[3], fields[4], fields[5], fields[6], fields[7]


def misses(server, sql, predicted, received):
    """Reports that no prediction covers."""
    effects = {effect for statement in predicted for effect in statement["effects"]}
    if effects & UNBOUND:
        return []
    relations = {relation["name"]: set(relation["effects"]) for statement in predicted for relation in statement["relations"]}
    return [entry for entry in audited(received) if not covered(server, sql, entry, effects, relations)]


def covered(server, sql, entry, effects, relations):
    kind, command, object_kind, name, text = entry
    # Triggers, defaults and foreign keys belong to the table that is written, and run texts of their own.
    is_nested = text.split() != sql.split() and text != "<previously logged>"
    if (is_nested or kind == "FUNCTION") and effects & WRITES:
        return True
    # A SELECT of constants reads nothing; what describes an object reads its description.
    if kind == "READ" and (not name or name in DESCRIPTIONS):
        return True
    needed = {VERBS[command]} if command in VERBS else NEEDS.get(kind, set())
    if needed and not needed & effects:
        return False
    if kind not in ("READ", "WRITE") or not name or object_kind in ("", "INDEX", "SEQUENCE"):
        return True
    bare = name.split(".")[-1].strip('"')
    if bare in relations:
        verb = VERBS.get(command)
        return kind == "READ" or verb is None or verb in relations[bare] or bool(relations[bare] & WRITES)
    return not server.is_failed() and bare in server.names_below(relations)


def run_all(server, analysis, listed, source):
    """Runs statements in order and returns the misses."""
    found, counts = [], Counter()
    for sql in listed:
        if LEFT_OUT.search(sql) or "\0" in sql:
            counts["left out"] += 1
            continue
        received = list(server.ask(sql))
        reports = list(audited(received))
        counts["statements"] += 1
        counts["reports"] += len(reports)
        counts["failed"] += bool(errors(received))
        predicted = analysis.of(sql)
        if predicted is None:
            counts["refused as not understood"] += 1
            continue
        counts["unbound"] += any(set(statement["effects"]) & UNBOUND for statement in predicted)
        for entry in misses(server, sql, predicted, received):
            found.append((sql, entry))
            effects = sorted({effect for statement in predicted for effect in statement["effects"]})
            print(f"MISS {','.join(entry[:4])}: predicted {effects} on {[r['name'] for s in predicted for r in s['relations']]}\n    {sql}", flush=True)
    print(f"{source}: " + ", ".join(f"{count} {what}" for what, count in counts.items()) + f"; {len(found)} misses", flush=True)
    return found


def main():
    total, start = int(sys.argv[1]), time.monotonic()
    third = total // 3
    make = Server("postgres")
    make.ask("create database regression template template0")
    analysis = Analysis()
    written = list(regression(all_files=total > 10_000))[:third]
    found = run_all(Server("regression"), analysis, written, "regression files")
    server = Server("regression")
    smithed = sqlsmith(server.login["port"], server.login["password"], "regression", third, SEED)
    found += run_all(server, analysis, smithed, "sqlsmith")
    # What is changed runs where it can break nothing that the others need.
    changed = mutations(written + smithed, total - len(written) - len(smithed), SEED)
    found += run_all(Server("regression"), analysis, changed, "changed")
    print(f"{total} statements asked for, {len(found)} misses, {time.monotonic() - start:.0f} s")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
