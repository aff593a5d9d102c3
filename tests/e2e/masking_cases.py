"""The rows of corpus/masking/, as an analyst: no raw value of the table is in any byte that the client receives."""

import glob
import os
import re
import tomllib

import psycopg
from support import Tap, case, login, main

CORPUS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "corpus", "masking")
# What a raw value looks like; every match is then looked up among the true values.
SHAPES = re.compile(rb"\d{3}-\d{2}-\d{4}|\d{16}|[A-Za-z0-9._]+@[a-z.]+[a-z]|\+1\d{10}")
COLUMNS = ("ssn", "card", "email", "phone")


def true_values():
    with psycopg.connect(dbname="shop", **login("direct")) as connection:
        rows = connection.execute("select ssn, card, email, phone, notes from customers").fetchall()
        target = connection.execute("select ssn, card, email, phone from customers where id = 7").fetchone()
    values = {value.encode() for row in rows for value in row[:4]}
    for row in rows:
        values.update(SHAPES.findall((row[4] or "").encode()))
    ssn, card, email, phone = (value.encode() for value in target)
    # Pieces that a partial query would show. The last four characters may stay, by policy.
    pieces = {ssn, ssn[:9], ssn.replace(b"-", b""), card, card[:12], email, email[:12], phone, phone[1:]}
    return values, pieces


def leaks(received, values, pieces):
    found = {match for match in SHAPES.findall(bytes(received)) if match in values}
    return found | {piece for piece in pieces if piece in received}


def run_row(row, way):
    """Runs a row's statements in one session by one way; returns the client-bound bytes and the errors."""
    tap = Tap()
    errors = []
    with psycopg.connect(dbname="shop", autocommit=True, **login("analyst", tap.port)) as connection:
        for statement in row["sql"]:
            try:
                way(connection, statement)
            except psycopg.Error as error:
                errors.append(f"{error.sqlstate} {error}")
                assert not connection.broken, f"{row['name']}: the session broke: {error}"
    return tap.in_clear(), errors


def simple(connection, statement):
    result = connection.pgconn.exec_(statement.encode())
    if result.status == psycopg.pq.ExecStatus.FATAL_ERROR:
        raise psycopg.errors.error_from_result(result)


def extended(result_format):
    def run(connection, statement):
        result = connection.pgconn.exec_params(statement.encode(), [], result_format=result_format)
        if result.status == psycopg.pq.ExecStatus.FATAL_ERROR:
            raise psycopg.errors.error_from_result(result)

    return run


def prepared(connection, statement):
    """Describes once and executes three times: the later ones have no RowDescription of their own on the wire."""
    raw = connection.pgconn
    for result in (raw.prepare(b"p", statement.encode()), *(raw.exec_prepared(b"p", [], result_format=1) for _ in range(3))):
        if result.status == psycopg.pq.ExecStatus.FATAL_ERROR:
            raise psycopg.errors.error_from_result(result)


def copy_out(connection, statement):
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for _ in copy:
            pass


def rows():
    for path in sorted(glob.glob(os.path.join(CORPUS, "*.toml"))):
        with open(path, "rb") as file:
            yield from tomllib.load(file)["row"]


def ways_of(row):
    if row.get("copy"):
        return {"copy": copy_out}
    alone = {"extended in text": extended(0), "extended in binary": extended(1), "prepared": prepared}
    return {"simple": simple} | (alone if len(row["sql"]) == 1 else {})


def register(row):
    def run():
        values, pieces = true_values()
        for name, way in ways_of(row).items():
            received, errors = run_row(row, way)
            found = leaks(received, values, pieces)
            assert not found, f"{name}: {len(found)} raw values reached the client, such as {sorted(found)[:5]}"
            assert not (row.get("works") and errors), f"{name}: this must work: {errors}"

    run.__name__ = "no_raw_value_by_" + re.sub(r"\W+", "_", row["name"]).lower()
    case(run)


for each in rows():
    register(each)


@case
def the_search_for_raw_values_finds_them():
    """The same rows, read directly: what the cases above look for is there to be found."""
    with psycopg.connect(dbname="shop", **login("direct")) as connection:
        shown = connection.execute("select ssn || ' ' || notes from customers where id in (1, 11)").fetchall()
    found = leaks(repr(shown).encode(), *true_values())
    assert len(found) >= 4, found


@case
def a_dba_is_not_masked():
    values, _ = true_values()
    with psycopg.connect(dbname="shop", **login("dba")) as connection:
        row = connection.execute("select ssn, card, email, phone from customers where id = 7").fetchone()
    assert all(value.encode() in values for value in row), row


main()
