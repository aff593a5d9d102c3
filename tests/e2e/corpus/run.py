"""Runs the hostile corpus (tests/corpus/hostile/README.md) against one gateway and its server.

    run.py --setup MAJOR     prints the script that makes the databases, with what the rows need
    run.py [--generator] …   runs; the environment says where: see Place
"""

import os
import sys
import time
import tomllib

import forms
from canary import Watch
from wire import errors, fields_of, shown
from worlds import CORPUS, WORLDS, compared, setup

import psycopg

KEYS = {"kind", "name", "role", "versions", "setup", "sql", "each", "messages", "then", "answer", "unwanted", "state", "changes", "without"}


class Place:
    """Where the gateway and its server are, and how one logs in."""

    def __init__(self):
        self.major = int(os.environ["SERVER_MAJOR"])
        self.server, self.gateway = int(os.environ["SERVER_PORT"]), int(os.environ["GATEWAY_PORT"])
        self.tokens = dict(pair.split("=", 1) for pair in os.environ["TOKENS"].split())
        self.superuser = {"host": "127.0.0.1", "port": self.server, "user": "postgres"}
        self.superuser["password"] = os.environ["SUPERUSER_PASSWORD"]
        self.owners = {}

    def through(self, role, world):
        user = os.environ["GATEWAY_USER"]
        return {"port": self.gateway, "database": world, "user": user, "password": self.tokens[role]}

    def direct(self, world):
        return {"port": self.server, "database": world, "user": "wireward", "password": os.environ["SERVER_PASSWORD"]}

    def digest(self, world):
        if world not in self.owners:
            self.owners[world] = psycopg.connect(dbname=world, autocommit=True, **self.superuser)
        return self.owners[world].execute("select audit_of_test.digest()").fetchone()[0]


def rows_of(path):
    with open(path, "rb") as file:
        listed = tomllib.load(file)["row"]
    for row in listed:
        row["kind"] = path.stem
        if isinstance(row.get("sql"), str):
            row["sql"] = [row["sql"]]
        unknown = set(row) - KEYS
        assert not unknown, f"{path}: {row['name']}: what is {unknown}?"
    return listed


def corpus():
    rows = [row for path in sorted(CORPUS.glob("*.toml")) for row in rows_of(path)]
    names = [row["name"] for row in rows]
    assert len(set(names)) == len(names), "two rows have one name: " + str({n for n in names if names.count(n) > 1})
    return rows


def seen(answer):
    """What one is told, to be compared: the end of a session counts as well."""
    return shown(answer.received + answer.probed) + [("ended", answer.ended)] * (answer.ended is not None)


def hostile_faults(place, watch, row, form):
    """What a hostile row got that it must not get, unit by unit."""
    answers, others = (forms.told(place.through(row["role"], world), row, form) for world in compared(row))
    for answer, other in zip(answers, others, strict=True):
        every = answer.received + answer.probed
        if answer.ended and "timed out" in answer.ended:
            yield answer, f"no answer: {answer.ended}"
        if canaries := watch.seen(every):
            yield answer, f"shows {sorted(canaries)[:3]}"
        if seen(answer) != seen(other) and row.get("state") != "differs":
            yield answer, "differs with what is protected: " + difference(seen(answer), seen(other))
        if row.get("answer") == "refused" and not errors(answer.received):
            yield answer, "is not refused: " + str(seen(answer))[:200]
        for value in set(row.get("unwanted", [])) & values(every):
            yield answer, f"answers {value}"


def values(received):
    return {value.decode(errors="replace") for kind, row in received if kind == b"D" for value in fields_of(row) if value}


def difference(one, another):
    for a, b in zip(one, another):
        if a != b:
            return f"{str(a)[:160]} and {str(b)[:160]}"
    return f"{len(one)} and {len(another)} messages: {str(one[-1:])[:160]} and {str(another[-1:])[:160]}"


def honest_faults(place, row, form):
    world = compared(row)[0]
    through = forms.told(place.through(row["role"], world), row, form)
    directly = forms.told(place.direct(world), row, form)
    for answer, wanted in zip(through, directly, strict=True):
        if seen(answer) != seen(wanted):
            yield answer, "is answered otherwise than directly: " + difference(seen(answer), seen(wanted))


def check(place, watch, row):
    """The faults of one row in all of its forms, each with the forms that it showed in."""
    honest = row.get("answer") == "works"
    found = {}
    before = None if honest else [place.digest(world) for world in compared(row)]
    for form in forms.of(row):
        try:
            faults = honest_faults(place, row, form) if honest else hostile_faults(place, watch, row, form)
            faults = [(answer.sent, fault) for answer, fault in faults]
        except (OSError, ConnectionError) as error:
            faults = [("", f"no session: {error}")]
        if not honest and row.get("changes") != "any":
            after = [place.digest(world) for world in compared(row)]
            if after != before:
                faults, before = [*faults, ("", "changes the database")], after
        for sent, fault in faults:
            found.setdefault(sent, {}).setdefault(fault, []).append(form)
    return found


def report(place, row, found):
    print(f"FAILED on {place.major}: {row['kind']}: {row['name']} (as {row['role']})")
    for sent, faults in found.items():
        print("  " + sent[:900])
        for fault, shown_in in faults.items():
            print(f"      {', '.join(shown_in)}: {fault}")
    sys.stdout.flush()


def main():
    if sys.argv[1:2] == ["--setup"]:
        major = int(sys.argv[2])
        print("\n".join(setup(world, major, corpus()) for world in WORLDS))
        return
    wanted = [word for word in sys.argv[1:] if not word.startswith("-")]
    place, watch = Place(), Watch()
    rows = [row for row in corpus() if place.major in row.get("versions", (15, 18))]
    rows = [row for row in rows if not wanted or any(w in row["kind"] + ": " + row["name"] for w in wanted)]
    start, failed = time.monotonic(), 0
    for row in rows:
        found = check(place, watch, row)
        failed += bool(found)
        if found:
            report(place, row, found)
    hostile = sum(row.get("answer") != "works" for row in rows)
    seconds = time.monotonic() - start
    print(f"on {place.major}: {hostile} hostile and {len(rows) - hostile} honest rows, {failed} failed, {seconds:.0f} s")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
