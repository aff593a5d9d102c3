"""The ways in which one list of statements can be sent. What holds must hold in each of them."""

import re
from functools import partial
from typing import NamedTuple

from wire import FLUSH, SYNC, Session, bind, close, describe, execute, parse, query

HARMLESS = "select count(*) from orders"
# What SQL's PREPARE takes. A PREPARE of anything else is a mistake of grammar.
PREPARABLE = re.compile(r"\s*(select|insert|update|delete|merge|values|with|table|\()", re.I)
# 63 bytes are what the server keeps of a name.
LONG_NAME = "k" * 63
# 32 letters of one byte each in single-byte encodings; the server keeps each in two.
WIDE_NAME = b"\xe9".decode(errors="surrogateescape") * 32


def simple(session, statements):
    for sql in statements:
        session.send(query(sql))
        session.until_ready()


def in_one_text(session, statements):
    session.send(query(";\n".join(statements)))
    session.until_ready()


def extended(session, statements, binary=False):
    for sql in statements:
        session.send(member(sql, binary) + SYNC)
        session.until_ready()


def extended_binary(session, statements):
    extended(session, statements, binary=True)


def member(sql, binary=False):
    return parse("", sql) + bind("", "", binary=binary) + describe(b"P", "") + execute("")


def pipelined(session, statements):
    members = [HARMLESS, *statements, HARMLESS]
    session.send(b"".join(map(member, members)) + SYNC)
    session.until_ready()


def two_writes(session, statements):
    """Queries in one write: the second is there before the first has been answered."""
    texts = [HARMLESS, *statements, HARMLESS]
    session.send(b"".join(map(query, texts)))
    session.until_ready(len(texts))


def split(session, statements):
    for sql in statements:
        session.send_in_pieces(query(sql), 5)
        session.until_ready()


def by_prepare(session, statements):
    for sql in statements:
        if PREPARABLE.match(sql):
            session.prepared += 1
            name = f"taken{session.prepared}"
            simple(session, [f"prepare {name} as {sql}", f"execute {name}"])
        else:
            simple(session, [sql])


FORMS = {f.__name__: f for f in (simple, extended, extended_binary, pipelined, two_writes, split, by_prepare, in_one_text)}


def steps(session, listed, in_pieces=False):
    """The messages of a row: `[["parse", name, sql], …, ["sync"]]`; after `sync` and `query` the answer is read."""
    waiting, data = 0, b""
    for step, *given in listed:
        given = [expanded(g) if isinstance(g, str) else g for g in given]
        data += MESSAGES[step](*given)
        waiting += step in ("sync", "query")
        if step == "wait":
            send(session, data, in_pieces)
            session.until_ready(waiting)
            waiting, data = 0, b""
    send(session, data, in_pieces)
    session.until_ready(waiting)


def expanded(given):
    """`LONG` and `WIDE` are names of many letters, `RAWe9` is that byte (`RAWc2a0` those bytes)."""
    given = given.replace("LONG", LONG_NAME).replace("WIDE", WIDE_NAME)
    return re.sub("RAW((?:[0-9a-f]{2}){1,2})", lambda hexa: bytes.fromhex(hexa[1]).decode(errors="surrogateescape"), given)


def send(session, data, in_pieces):
    if in_pieces and len(data) > 8:
        session.send_in_pieces(data, 5)
    else:
        session.send(data)


MESSAGES = {
    "query": query,
    "parse": parse,
    "bind": lambda portal, statement, parameters=(): bind(portal, statement, parameters),
    "bind_binary": lambda portal, statement: bind(portal, statement, binary=True),
    "describe_portal": lambda name: describe(b"P", name),
    "describe_statement": lambda name: describe(b"S", name),
    "execute": execute,
    "close_statement": lambda name: close(b"S", name),
    "close_portal": lambda name: close(b"P", name),
    "sync": lambda: SYNC,
    "flush": lambda: FLUSH,
    "wait": lambda: b"",
}


def told(login, row, form):
    """What came for each unit of a row: its messages, its list, or each of its variants with what follows each."""
    if "messages" in row:
        send_unit = partial(steps, listed=row["messages"], in_pieces=form == "split")
        units = [("messages", send_unit)]
    elif "each" in row:
        units = [(sql, partial(FORMS[form], statements=[sql])) for sql in row["each"]]
    else:
        units = [("; ".join(row["sql"]), partial(FORMS[form], statements=row["sql"]))]
    session, answers = Session(**login), []
    try:
        for name, send_unit in units:
            session = session if session.ended is None else Session(**login)
            answers.append(answered(session, name, send_unit, row.get("then", [])))
    finally:
        session.close()
    return answers


def answered(session, name, send_unit, probes):
    session.received = []
    send_unit(session)
    mine, session.received = session.received, []
    if session.ended is None:
        simple(session, probes)
    return Answer(name, mine, session.received, session.ended)


class Answer(NamedTuple):
    sent: str
    received: list
    probed: list
    ended: str | None


def of(row):
    if "messages" in row:
        return ["simple", "split"]
    # A text of one statement is the simple form.
    left_out = row.get("without", []) + ["in_one_text"] * (len(row.get("sql", [])) < 2)
    return [form for form in FORMS if form not in left_out]
