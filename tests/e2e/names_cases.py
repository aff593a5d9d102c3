"""What the names of prepared statements and cursors stand for is what the server has: a model of it, held against a server."""

import os
import random
import time

from psycopg import OperationalError
from names_wire import FLUSH, SYNC, Wire, bind, close, describe, execute, message, parse, query
from support import case, main

SEQUENCES = int(os.environ.get("WIREWARD_NAMES_SEQUENCES", "2000"))
FROM = int(os.environ.get("WIREWARD_NAMES_FROM", "0"))
K = "k" * 61

# What a name can be cut to: 62 to 66 bytes, with a character of two bytes across the 63rd.
NAMES = ["a", "b", K + "xy", K + "xyY", K + "xyZ", K + "xyZZ", K + "x\u00e9", K + "x\u00e9Y", K + "\u00e9", K + "\u00e9Y", K + "x"]
OPEN = ["select 'alpha'", "select item, 2 from orders where id = 1", "select count(*), sum(id) from orders where id < 9",
        "values (1), (2), (3)"]
SECRET = ["select reverse(ssn) from customers where id in (1, 2) order by id", "select 'x', reverse(email) from customers where id = 1"]


def quoted(of):
    return '"' + of + '"'


class Sequence:
    """Messages of one session, the same for the same seed."""

    def __init__(self, seed, hides):
        self.random = random.Random(seed)
        self.hides = hides
        self.names = self.random.sample(NAMES, self.random.choice([1, 2, 2, 3]))
        if self.random.random() < 0.5:
            self.names = [self.random.choice([n for n in NAMES if n.startswith(K)]) for _ in range(3)]

    def below(self, name):
        """A name that the server's walk from this one cannot come back from: EXECUTE of itself ends a server 15 to 18."""
        rank = lambda of: sorted({n.encode()[:62] for n in self.names}).index(of.encode()[:62])
        lower = [n for n in self.names if name == "" or rank(n) < rank(name)]
        return self.random.choice(lower) if lower else None

    def statement(self):
        return self.random.choice(OPEN + SECRET)

    def name(self):
        return self.random.choice(self.names)

    def portal_and_statement(self):
        """The portal's name stands no lower, so that there is no circle through it either."""
        names = sorted([self.protocol_name(), self.protocol_name()], key=lambda n: (n == "", n.encode()[:62]))
        return names[1], names[0]

    def protocol_name(self):
        return self.random.choice(self.names + [""] * len(self.names))

    def text(self, under=""):
        """What may stand under that name of the protocol: no end of a transaction, which the server bears by EXECUTE as little."""
        while True:
            text = self.any_text(under)
            if under == "" or text.split(" ")[0] not in ("begin", "commit", "rollback", "savepoint", "release"):
                return text

    def any_text(self, under):
        used = self.below(under)
        if used is None and self.random.random() < 0.5:
            return self.statement()
        pick, name = self.random.random, quoted(self.name())
        used = quoted(used or "nobody")
        return self.random.choice(
            [
                lambda: self.statement(),
                lambda: self.statement(),
                lambda: f"prepare {name} as {self.statement()}",
                lambda: f"prepare {name} as {self.statement()}",
                lambda: f"execute {used}",
                lambda: f"execute {used}",
                lambda: f"deallocate {name}",
                lambda: "deallocate all" if pick() < 0.3 else f"deallocate {name}",
                lambda: f"declare {name} cursor{' with hold' if pick() < 0.3 else ''} for {self.statement()}",
                lambda: f"declare {name} cursor{' with hold' if pick() < 0.3 else ''} for {self.statement()}",
                lambda: f"fetch {self.random.choice(['1', 'all'])} {used}",
                lambda: f"fetch {self.random.choice(['1', 'all'])} {used}",
                lambda: f"move 1 {used}",
                lambda: "close all" if pick() < 0.3 else f"close {name}",
                lambda: "begin",
                lambda: "begin",
                lambda: self.random.choice(["commit", "rollback", "savepoint s", "rollback to s", "release s"]),
                lambda: "commit",
                lambda: self.random.choice(["discard all", "discard plans", "", "selec", "select 1/0"]),
                # Several statements in a text, and plans, are masked as one.
                lambda: "" if self.hides else f"explain (costs off) execute {used}",
                lambda: "" if self.hides else f"explain (costs off) declare {name} cursor for {self.statement()}",
            ]
        )()

    def step(self):
        """One message, or a few that belong together, and whether a write may end behind it."""
        draw = self.random.random()
        kind = self.random.choice([b"S", b"P"])
        if draw < 0.22:
            name = self.protocol_name()
            return [parse(name, self.text(name))], False
        if draw < 0.36:
            return [bind(*self.portal_and_statement())], False
        if draw < 0.50:
            return [execute(self.protocol_name(), self.random.choice([0, 0, 1]))], False
        if draw < 0.62:
            portal, statement = self.portal_and_statement()
            return [parse(statement, self.text(statement)), bind(portal, statement), execute(portal)], False
        if draw < 0.66:
            return [describe(kind, self.protocol_name())], False
        if draw < 0.72:
            return [close(kind, self.protocol_name())], False
        if draw < 0.74:
            return [FLUSH], False
        if draw < 0.88:
            return [SYNC], True
        texts = [self.text() for _ in range(self.random.choice([1] if self.hides else [1, 1, 1, 2, 3]))]
        # What we refuse ourselves is answered where the server, behind an error, says nothing.
        return [SYNC, query("; ".join(texts))], True

    def writes(self):
        """What is sent in one write each."""
        writes, write = [], []
        for _ in range(self.random.randint(6, 30)):
            messages, is_end = self.step()
            write += messages
            if is_end and self.random.random() < 0.7:
                writes.append(write)
                write = []
        return [*writes, write]


# A simple query that is skipped behind an error has no answer at all. The end of a write is known by what can be asked in any
# state, and by nobody else so often.
CLOSED = [("3",)] * 9
END = [SYNC, *[close(b"S", "nobody")] * len(CLOSED), SYNC]


def answers(wire, write):
    wire.send(*write, *END)
    found = []
    while found[-1 - len(CLOSED) : -1] != CLOSED:
        found += wire.until_ready()
    return found


def secrets(direct):
    values = direct.ask(query(SECRET[0])) + direct.ask(query(SECRET[1]))
    return {value for tag, *rest in values if tag == "D" for value in rest[0] if value and len(value) > 3}


class Sessions:
    def __init__(self, role):
        self.role, self.wires = role, None

    def fresh(self):
        self.close()
        for patience in range(100):
            try:
                self.wires = [Wire("direct"), Wire(self.role)]
                return self.wires
            except OperationalError:
                assert patience < 99
                time.sleep(0.2)

    def close(self):
        for wire in self.wires or []:
            wire.close()
        self.wires = None


def same(one, other, hidden):
    """Message by message; a row with what is hidden has to be another."""
    if one == other:
        return not any(value in hidden for tag, *rest in one if tag == "D" for value in rest[0])
    if len(one) != len(other):
        return False
    for a, b in zip(one, other):
        if a[0] == "D" and b[0] == "D" and any(value in hidden for value in a[1]):
            if any(value in hidden for value in b[1]):
                return False
        elif a != b:
            return False
    return True


def play(role, hides):
    sessions = Sessions(role)
    direct, _ = sessions.fresh()
    hidden = secrets(direct) if hides else set()
    assert len(hidden) == (3 if hides else 0), hidden
    differing = []
    for seed in range(FROM, FROM + SEQUENCES):
        direct, through = sessions.fresh() if seed % 20 == 0 else sessions.wires
        sequence = Sequence(seed, hides)
        for write in sequence.writes():
            try:
                wanted = answers(direct, write)
            except OSError:
                # The server itself has fallen over what it was told.
                sessions.fresh()
                break
            try:
                found = answers(through, write)
            except OSError as error:
                found = [repr(error)]
            if not same(wanted, found, hidden):
                differing.append((seed, write, wanted, found))
                sessions.fresh()
                break
        else:
            reset = [SYNC, query("rollback"), query("discard all"), close(b"S", ""), SYNC]
            for wire in sessions.wires:
                wire.ask(*reset, times=4)
        assert not hides or not any(value.encode() in sessions.wires[1].raw for value in hidden), seed
        sessions.wires[1].raw.clear()
        if len(differing) >= 3:
            break
    sessions.close()
    assert not differing, "\n\n".join(
        f"seed {seed}:\n  sent {write}\n  direct  {wanted}\n  gateway {found}" for seed, write, wanted, found in differing
    )


@case
def random_sequences_are_answered_as_by_the_server():
    play("dba", False)


@case
def random_sequences_show_a_masked_subject_the_same_but_for_what_is_masked():
    play("analyst", True)


ORDERS = "select count(*), sum(id) from orders where id < 9"
COUNTED = ("D", ("8", "36"))
RAW = "select reverse(ssn) from customers where id in (1, 2) order by id"
NOT_PREPARED, IDLE, DONE = ("E", "26000"), ("Z", "I"), ("C", "SELECT 1")


def run(statement):
    return [bind("", statement), execute(""), SYNC]


def hides(wire):
    direct = Wire("direct")
    hidden = secrets(direct)
    direct.close()
    assert len(hidden) == 3 and not any(value.encode() in wire.raw for value in hidden), wire.raw[-400:]


def same_as_direct(role, *writes):
    """The same answers as without the gateway."""
    direct, through = Wire("direct"), Wire(role)
    for write in writes:
        wanted, found = answers(direct, write), answers(through, write)
        assert wanted == found, f"{write}:\n  direct  {wanted}\n  gateway {found}"
    direct.close()
    through.close()


@case
def two_names_that_the_server_cuts_to_one_are_one():
    for more in ("xy", "x\u00e9", "xy" + "z" * 40):
        wire = Wire("analyst")
        wire.ask(parse(K + more + "Y", "select 'x'::text"), SYNC)
        found = wire.ask(close(b"S", K + more + "X"), parse(K + more + "X", RAW), SYNC, *run(K + more + "Y"), times=2)
        assert DONE in found or ("C", "SELECT 2") in found, found
        hides(wire)
        wire.ask(query("begin"), bind(K + more + "Y", K + more + "X"), SYNC, times=2)
        wire.ask(query(f'fetch all "{K + more}X"'))
        wire.ask(execute(K + more + "Z"), SYNC)
        hides(wire)
        wire.close()


@case
def an_execute_without_a_plan_runs_nothing_that_could_be_shown():
    wire = Wire("analyst")
    wire.ask(parse("h2", "select 'x'::text"), parse("d1", "deallocate h2"), parse("d2", f"prepare h2 as {RAW}"), SYNC)
    for statement in ("d1", "d2"):
        assert ("E", "42P05") in wire.ask(parse(statement, "select 1"), SYNC)
    wire.ask(bind("", "d1"), execute(""), bind("", "d2"), execute(""), SYNC)
    assert ("C", "SELECT 2") in wire.ask(*run("h2"))
    hides(wire)
    wire.close()


@case
def an_error_of_what_was_put_off_tells_nothing():
    declare = "declare c cursor with hold for select string_agg(reverse(ssn), ';')::int from customers where id < 9"
    prepared = [parse("", declare), bind("", ""), execute("")]
    writes = [
        [query("begin"), query(declare), query("commit")],
        [query("begin"), query(declare), query("end work")],
        [query("begin"), query(declare), parse("", "commit"), *run("")],
        [*prepared, SYNC],
        [*prepared, query("select 1"), SYNC],
        [*prepared, parse("", "select 1"), *run("")],
        [query(f"begin; {declare}"), query("select 1; commit")],
        [query(declare)],
    ]
    for write in writes:
        wire = Wire("analyst")
        found = answers(wire, write)
        assert ("E", "22P02") in found, (write, found)
        hides(wire)
        wire.close()


@case
def what_is_refused_or_cannot_be_read_leaves_no_unnamed_statement():
    good = [parse("", "select id from orders order by id limit 1"), SYNC]
    for bad in ([parse("", "selec"), SYNC], [query("selec")], [query("")], [query("select 1/0")], [SYNC, query("begin"), SYNC]):
        for role in ("dba", "analyst", "agent"):
            same_as_direct(role, good, bad, run(""), [describe(b"S", ""), SYNC])
            same_as_direct(role, [query("begin")], good, bad, run(""), [query("rollback")], run(""))
            same_as_direct(role, [*good, *bad, *run("")])
    for refused in (parse("", "drop table customers"), query("drop table customers")):
        wire = Wire("agent")
        end = [SYNC] if refused[:1] == b"P" else []
        assert wire.ask(*good) == [("1",), IDLE]
        assert wire.ask(refused, *end) == [("E", "42501"), IDLE]
        assert wire.ask(*run("")) == [NOT_PREPARED, IDLE]
        # In one write, and in a transaction, where the server itself is made to fail.
        assert wire.ask(*good, refused, *end, *run(""), times=3)[-2:] == [NOT_PREPARED, IDLE]
        assert wire.ask(query("begin"), *good, refused, *end, *run(""), times=4)[-2:] == [NOT_PREPARED, ("Z", "E")]
        # What is skipped behind an error drops nothing.
        found = wire.ask(query("rollback"), *good, bind("", "none"), parse("", "drop table customers"), SYNC, *run(""), times=4)
        assert ("D", ("1",)) in found, found
        wire.close()


@case
def what_touches_one_name_leaves_the_others():
    touching = [
        [query("prepare z as select 1"), query("deallocate z")],
        [query("deallocate nothing")],
        [query("begin; declare k cursor for select 1"), query("close k; commit")],
        [query("close nothing")],
        [parse("p1", "select 1"), SYNC],
        [bind("", "none"), parse("", "deallocate all"), bind("", ""), execute(""), SYNC],
        [parse("z", "deallocate all"), bind("", "z"), SYNC],
        [query("explain execute p1")],
    ]
    for touch in touching:
        for role in ("dba", "analyst"):
            wire = Wire(role)
            wire.ask(parse("p1", ORDERS), SYNC)
            answers(wire, touch)
            found = wire.ask(*run("p1"))
            assert COUNTED in found, (role, touch, found)
            wire.close()


@case
def what_comes_by_cursor_and_execute_is_masked_as_what_stands_there():
    for text, wanted in ((ORDERS, COUNTED), ("select 1", ("D", ("1",))), ("select upper(item) from orders where id = 1", ("D", ("LAMP",)))):
        for write in (
            [query(f"prepare p as {text}"), query("execute p")],
            [query("begin"), query(f"declare c cursor for {text}"), query("fetch all c"), query("commit")],
            [query(f"declare c cursor with hold for {text}"), query("fetch all c"), query("close c")],
            [query(f"prepare p as {text}"), parse("e", "execute p"), *run("e")],
            [query("begin"), parse("", text), bind("c", ""), SYNC, query("fetch all c"), query("commit")],
            [parse("q", text), SYNC, query("execute q")],
            [query(f"prepare p as {text}"), *run("p")],
        ):
            wire = Wire("analyst")
            found = answers(wire, write)
            assert wanted in found, (write, found)
            wire.close()
    for write in (
        [query("prepare p as select 1"), query("deallocate p"), query(f"prepare p as {RAW}"), query("execute p")],
        [query("prepare p as select 1"), parse("e", "execute p"), SYNC, query("deallocate p"), query(f"prepare p as {RAW}"), *run("e")],
        [query("begin"), query("declare c cursor for select 1"), query(f"close c; declare c cursor for {RAW}"), query("fetch all c")],
        [query("begin"), query(f"declare c cursor for {RAW}"), query("explain declare c cursor for select 1"), query("fetch all c")],
        [query("begin"), query(f"declare c cursor for {RAW}"), query("explain declare c cursor for select 1"), execute("c"), SYNC],
        [parse("x", f"prepare p as {RAW}"), SYNC, query("prepare p as select 1"), query("deallocate p"), *run("x"), *run("p")],
    ):
        wire = Wire("analyst")
        answers(wire, write)
        hides(wire)
        wire.close()


# Lexed with standard_conforming_strings off, a row of all that is masked; with it on, one constant.
EVIL = "select 'a\\'', reverse(ssn), reverse(email) from customers --'"


@case
def behind_a_call_that_unpins_a_setting_nothing_runs():
    def member(text):
        return [parse("", text), bind("", ""), execute("")]

    for write in (
        [query("select unpin()"), query(EVIL)],
        [*member("select unpin()"), *member(EVIL), SYNC],
        [*member("select unpin()"), SYNC, *member(EVIL), SYNC],
        [*member("select unpin()"), *member(EVIL), *member("select pin()"), SYNC],
        [*member("select unpin()"), query(EVIL)],
        [query("begin"), query("select unpin()"), *member(EVIL), SYNC],
        [query("begin; select 1/0"), query("rollback; select unpin()"), SYNC, query(EVIL)],
        [query("begin; select 1/0"), *member("rollback"), *member("select unpin()"), SYNC, SYNC, *member(EVIL), SYNC],
        [parse("", "select hide_catalog()"), bind("", ""), execute(""), *member("select 1"), SYNC],
    ):
        wire = Wire("agent")
        try:
            found = wire.ask(*write, SYNC, query("select 'it goes on'"), times=9)
        except OSError:
            found = []
        assert ("D", ("it goes on",)) not in found, (write, found)
        hides(wire)
        wire.close()


@case
def honest_pipelines_of_calls_go_on():
    for role in ("agent", "dba"):
        wire = Wire(role)
        wire.ask(parse("named", ORDERS), parse("call", "select harmless($1)"), SYNC)
        member = [parse("", "select harmless(1)"), bind("", ""), execute("")]
        for write in ([*member * 5, *run("named")], [query("select harmless(1)")] * 3, [*member, query("select harmless(2)")]):
            found = answers(wire, [*write, *run("named"), query("begin"), *member, *run("named"), query("commit")])
            assert found.count(COUNTED) >= 2 and not any(m[0] == "E" for m in found), found
        called = message(b"B", b"\0call\0\0\0\0\1\0\0\0\1" + b"7" + b"\0\0")
        for _ in range(8):
            found = wire.ask(called, execute(""), called, execute(""), SYNC)
            assert found.count(("C", "SELECT 1")) == 2, found
        # In a failed transaction, and behind its end.
        answers(wire, [query("begin"), *member, query("selec"), query("select 1")])
        assert COUNTED in answers(wire, [query("rollback"), *run("named")])
        wire.close()


@case
def a_call_that_prepares_another_statement_of_a_name_shows_nothing_of_it():
    for role in ("agent", "dba"):
        wire = Wire(role)
        wire.ask(parse("h", "select 'x'::text"), parse("other", ORDERS), SYNC)
        wire.ask(query("select takes_name('h')"))
        found = wire.ask(*run("h"))
        assert role == "dba" or ("E", "0A000") in found, found
        assert COUNTED in wire.ask(*run("other"))
        answers(wire, [query("execute h"), query("begin"), bind("c", "h"), SYNC, query("fetch all c"), execute("c"), SYNC])
        if role == "agent":
            hides(wire)
        wire.close()


@case
def a_statement_above_the_limit_is_refused_and_the_session_goes_on():
    long = "select '" + "x" * (1 << 20) + "'"
    for role in ("dba", "analyst"):
        wire = Wire(role)
        for write, times in (
            ([query(long)], 1),
            ([parse("", long), bind("", ""), execute(""), SYNC], 1),
            ([parse("named", long), SYNC], 1),
        ):
            assert wire.ask(*write, times=times) == [("E", "54000"), IDLE]
            assert COUNTED in wire.ask(query(ORDERS))
        assert wire.ask(query("begin"), query(long), query("select 1"), times=3)[2:] == [
            ("E", "54000"), ("Z", "E"), ("E", "25P02"), ("Z", "E")]
        found = wire.ask(query("rollback"), parse("", ORDERS), bind("", ""), execute(""), parse("", long), SYNC, times=2)
        assert COUNTED in found and found[-2:] == [("E", "54000"), IDLE], found
        assert wire.ask(bind("", "none"), parse("", long), SYNC) == [NOT_PREPARED, IDLE]
        assert wire.ask(*run("")) == [NOT_PREPARED, IDLE]
        wire.close()


@case
def a_payload_of_others_is_hidden_and_ones_own_is_not():
    wire, dba = Wire("agent"), Wire("dba")
    wire.ask(query("listen news"))
    dba.ask(query("select pg_notify('news', reverse(ssn)) from customers where id = 1"))
    found = []
    while not any(m[0] == "A" for m in found):
        found += wire.ask(query("select 1"))
    hides(wire)
    assert b"told by me" in (wire.ask(query("notify news, 'told by me'")) and bytes(wire.raw)), wire.raw
    wire.close()
    dba.close()


main()
