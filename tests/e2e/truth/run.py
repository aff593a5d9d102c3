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

STATEMENT_MAX_MS = 500
SEED = 20261130
# What would end the server, the database or the test itself.
LEFT_OUT = re.compile(
    r"pg_terminate_backend|pg_sleep|alter\s+system|drop\s+database|pg_promote|checkpoint|pgaudit|\bprogram\b|alter\s+(role|user)\s+\"?postgres"
    r"|set\s+session\s+authorization|pg_reload_conf|statement_timeout|client_min_messages|pg_rotate|reindex\s+(database|system)|\bset\s+role\b"
    r"|alter\s+database|tt14|log_statement|pg_cancel_backend|pg_stat_reset|session_preload",
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
# What a relation reads or writes by its definition: views and rules, row security, inheritance, foreign keys. A view that calls
# somebody's function has no bounds: then the name `()` is among them.
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
select relname from below join pg_class on oid = o
union select '()' from below b join pg_rewrite r on r.ev_class = b.o join pg_depend d on d.objid = r.oid
    where d.classid = 'pg_rewrite'::regclass and d.refclassid in ('pg_proc'::regclass, 'pg_operator'::regclass)"""
# Functions that the server calls because of what a table, an index or a type is: its owner's, not the statement's.
BY_DEFINITION = """
select 1 from pg_proc p join pg_namespace n on n.oid = pronamespace where nspname || '.' || proname = '{name}' and (
    exists (select from pg_amproc where amproc = p.oid) or exists (select from pg_type where p.oid in (typinput, typoutput, typreceive, typsend))
    or exists (select from pg_depend where refobjid = p.oid and refclassid = 'pg_proc'::regclass and classid in ('pg_constraint'::regclass, 'pg_class'::regclass, 'pg_attrdef'::regclass)))"""
# What users have added, as control/catalogue.rs of the gateway reads it.
OWN = "not in ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)"
ADDED = f"""
select json_build_object(
    'functions', (select coalesce(json_agg(distinct proname), '[]') from pg_proc where pronamespace {OWN}),
    'operators', (select coalesce(json_agg(distinct oprname), '[]') from pg_operator where oprnamespace {OWN}),
    'casts', (select coalesce(json_agg(distinct typname), '[]') from pg_cast join pg_proc p on p.oid = castfunc join pg_type t on t.oid = casttarget where pronamespace {OWN}),
    'unwritten_casts', exists (select from pg_cast join pg_proc p on p.oid = castfunc where pronamespace {OWN} and castcontext <> 'e'),
    'lively_types', (select coalesce(json_agg(distinct typname), '[]') from pg_type where typnamespace {OWN} and (typtype in ('b', 'r', 'm') or typtype = 'd' and exists (select from pg_constraint where contypid = pg_type.oid))),
    'columns', (select coalesce(json_agg(relname || '.' || attname), '[]') from pg_attribute join pg_class c on c.oid = attrelid where not attisdropped)
)"""


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
        received = self.ask_at_leisure(BELOW.format(names=listed))
        return {fields_of(payload)[0].decode() for kind, payload in received if kind == b"D"}

    def is_by_definition(self, name):
        """A function that no statement need name."""
        return any(kind == b"D" for kind, _ in self.ask_at_leisure(BY_DEFINITION.format(name=name.replace("'", "''"))))

    def added(self):
        """What users have added to the server, as the analysis is told it."""
        rows = [fields_of(payload)[0] for kind, payload in self.ask_at_leisure(ADDED) if kind == b"D"]
        return json.loads(rows[0]) if rows else None

    def ask_at_leisure(self, sql):
        return list(self.ask(f"set statement_timeout = 0; {sql}; set statement_timeout = {STATEMENT_MAX_MS}"))

    def in_transaction(self):
        last = self.session.received[-1:] if self.session else []
        return bool(last) and last[0] in ((b"Z", b"E"), (b"Z", b"T"))

    def is_failed(self):
        last = self.session.received[-1:] if self.session else []
        return bool(last) and last[0] == (b"Z", b"E")


class Analysis:
    """The analysis of the gateway, a line a statement. What a session has prepared is remembered by name."""

    def __init__(self):
        self.process = subprocess.Popen([os.environ["ANALYSE"], "15"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.prepared, self.held = {}, []

    def ask(self, sql, added=None):
        self.process.stdin.write(json.dumps({"sql": sql, "added": added}) + "\n")
        self.process.stdin.flush()
        predicted = json.loads(self.process.stdout.readline())
        return None if "error" in predicted else predicted

    def of(self, sql, succeeded):
        predicted = self.ask(sql)
        if predicted is None:
            return None
        for statement in list(predicted):
            if statement["defines"] and succeeded:
                self.prepared[statement["defines"]] = statement
            if statement["uses"] in self.prepared:
                predicted.append(self.prepared[statement["uses"]])
            # COMMIT reads what cursors hold.
            if statement["tag"].startswith("DECLARE") and re.search(r"\bwith\s+hold\b", sql, re.I):
                self.held.append(statement)
            if "transaction" in statement["effects"]:
                predicted += self.held
        return predicted


def audited(received):
    """The reports of pgaudit: class, command, kind and name of the object, and the text that they are about."""
    for kind, payload in received:
        told = report_of(payload).get("M", "") if kind == b"N" else ""
        if told.startswith("AUDIT: SESSION,"):
            fields = next(csv.reader([told.replace("\n", " ")]))
            yield fields[3], fields[4], fields[5], fields[6], fields[7]


def misses(server, analysis, sql, predicted, received):
    """Reports that no prediction covers, also not one that knows what users have added: a name may be anybody's function."""
    found = uncovered(server, sql, predicted, received)
    if found and not server.is_failed() and (added := server.added()):
        known = analysis.ask(sql, added) or []
        found = uncovered(server, sql, predicted + known, received)
    return found


def uncovered(server, sql, predicted, received):
    effects = {effect for statement in predicted for effect in statement["effects"]}
    if effects & UNBOUND:
        return []
    relations = {relation["name"]: set(relation["effects"]) for statement in predicted for relation in statement["relations"]}
    return [entry for entry in audited(received) if not covered(server, sql, entry, effects, relations)]


def covered(server, sql, entry, effects, relations):
    kind, command, object_kind, name, text = entry
    is_nested = text.split() != sql.split() and text != "<previously logged>"
    # Triggers, defaults and foreign keys belong to the table that is written, and run texts of their own.
    if (is_nested or kind == "FUNCTION") and effects & WRITES:
        return True
    # What describes an object reads the catalogue, and so does a view of it; a SELECT of constants reads nothing.
    of_catalogue = name.startswith("pg_catalog.") and (is_nested or name in DESCRIPTIONS or any(map(is_system, relations)))
    if kind == "READ" and (not name or of_catalogue) or command in ("???", "EXPLAIN") or object_kind == "COMPOSITE TYPE":
        return True
    if kind == "FUNCTION" and name.startswith("information_schema."):
        return True
    # VACUUM and ANALYZE call what indexes are made of.
    if kind == "FUNCTION" and effects & {"admin", "ddl"}:
        return True
    if kind == "FUNCTION":
        return not server.is_failed() and (server.is_by_definition(name) or "()" in server.names_below(relations))
    if re.match(r"\W*explain\b", without_comments(sql), re.I) and not re.search(r"\banalyze\b", sql, re.I):
        kind, command = "READ", "SELECT"
    needed = {VERBS[command]} if command in VERBS else NEEDS.get(kind, set())
    bare = name.split(".")[-1].strip('"')
    # A materialized view is made anew from what it reads, a constraint looks at the tables that it binds, a rule writes others.
    if effects & (WRITES | {"ddl"}) and (kind == "READ" or bare not in relations):
        needed = set()
    if needed and not needed & effects:
        return False
    if kind not in ("READ", "WRITE") or not name or object_kind in ("", "INDEX", "SEQUENCE"):
        return True
    if bare in relations:
        return kind == "READ" or command not in VERBS or VERBS[command] in relations[bare]
    below = set() if server.is_failed() else server.names_below(relations)
    return bare in below or "()" in below


def is_system(relation):
    return relation.startswith("pg_") or relation in INFORMATION_SCHEMA


def without_comments(sql):
    return re.sub(r"/\*.*?\*/|--[^\n]*", " ", sql, flags=re.S)


def run_all(server, analysis, listed, source):
    """Runs statements in order and returns the misses, and which statements succeeded."""
    found, good, counts = [], [], Counter()
    for sql in listed:
        if LEFT_OUT.search(sql) or "\0" in sql:
            counts["left out"] += 1
            continue
        received = list(server.ask(sql))
        reports = list(audited(received))
        counts["statements"] += 1
        counts["reports"] += len(reports)
        if errors(received):
            counts["failed"] += 1
        else:
            good.append(sql)
        predicted = analysis.of(sql, not errors(received))
        if source != "regression files" and server.in_transaction():
            server.ask("rollback")
        if predicted is None:
            counts["refused as not understood"] += 1
            continue
        counts["unbound"] += any(set(statement["effects"]) & UNBOUND for statement in predicted)
        for entry in misses(server, analysis, sql, predicted, received):
            found.append((sql, entry))
            effects = sorted({effect for statement in predicted for effect in statement["effects"]})
            print(f"MISS {','.join(entry[:4])}: predicted {effects} on {[r['name'] for s in predicted for r in s['relations']]}\n    {sql}", flush=True)
    print(f"{source}: " + ", ".join(f"{count} {what}" for what, count in counts.items()) + f"; {len(found)} misses", flush=True)
    return found, good


INFORMATION_SCHEMA = set()


def main():
    total, start = int(sys.argv[1]), time.monotonic()
    third = total // 3
    make = Server("postgres")
    make.ask("create database regression template template0")
    received = make.ask("select relname from pg_class where relnamespace = 'information_schema'::regnamespace")
    INFORMATION_SCHEMA.update(fields_of(payload)[0].decode() for kind, payload in received if kind == b"D")
    analysis = Analysis()
    written = list(regression(all_files=total > 10_000))[:third]
    found, good = run_all(Server("regression"), analysis, written, "regression files")
    server = Server("regression")
    smithed = sqlsmith(server.login["port"], server.login["password"], "regression", third, SEED)
    more, also_good = run_all(server, analysis, smithed, "sqlsmith")
    server.ask("drop table if exists kept; create table kept (n bigint); insert into kept values (1)")
    received = server.ask("select relname from pg_class where relkind in ('r', 'v', 'p') and relnamespace = 'public'::regnamespace")
    relations = {fields_of(payload)[0].decode() for kind, payload in received if kind == b"D"}
    changed = mutations(good + also_good, relations, total - len(written) - len(smithed), SEED)
    even_more, _ = run_all(server, analysis, changed, "changed")
    found += more + even_more
    print(f"{total} statements asked for, {len(found)} misses, {time.monotonic() - start:.0f} s")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
