"""Every statement of corpus/queries.sql, directly and through the gateway as a dba: the answers are the same bytes."""

import os

import psycopg
from psycopg import pq
from support import case, login, main

CORPUS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "corpus", "queries.sql")
FIELDS = [field for field in pq.DiagnosticField if field not in (pq.DiagnosticField.SOURCE_LINE,)]


def statements():
    with open(CORPUS, encoding="utf-8") as corpus:
        return [line.rstrip("\n") for line in corpus if line.strip() and not line.startswith("--")]


def connect(role):
    return psycopg.connect(dbname="shop", autocommit=True, **login(role))


def answer(result):
    """All that a client can see of a result."""
    columns = [
        (result.fname(c), result.ftable(c), result.ftablecol(c), result.fformat(c), result.ftype(c), result.fmod(c), result.fsize(c))
        for c in range(result.nfields)
    ]
    rows = [[result.get_value(r, c) for c in range(result.nfields)] for r in range(result.ntuples)]
    # A syntax error, and that a name has no statement, are ours to say in the server's words, but not where in its source; that a
    # transaction has failed may be said of our own question behind a DO block.
    ours = result.error_field(pq.DiagnosticField.SQLSTATE) in (b"42601", b"26000", b"25P02")
    places = (pq.DiagnosticField.SOURCE_FILE, pq.DiagnosticField.SOURCE_FUNCTION)
    error = [result.error_field(field) for field in FIELDS if not (ours and field in places)]
    return result.status, result.command_status, columns, rows, error


def in_a_transaction(connection, action):
    """What `action` returns; whatever it did is undone."""
    raw = connection.pgconn
    raw.exec_(b"begin")
    seen = action(raw)
    raw.exec_(b"rollback")
    raw.exec_(b"deallocate all")
    return seen


def simple(text):
    return lambda raw: answer(raw.exec_(text))


def extended(text, result_format):
    return lambda raw: answer(raw.exec_params(text, [], result_format=result_format))


def prepared(text, result_format):
    def run(raw):
        steps = [answer(raw.prepare(b"same", text)), answer(raw.describe_prepared(b"same"))]
        return steps + [answer(raw.exec_prepared(b"same", [], result_format=result_format)) for _ in range(3)]

    return run


def compare(ways):
    differing = []
    with connect("direct") as direct, connect("dba") as through:
        for statement in statements():
            for way in ways(statement.encode()):
                expected, found = in_a_transaction(direct, way), in_a_transaction(through, way)
                if expected != found:
                    differing.append(f"{statement}\n  directly: {expected!r:.700}\n  through:  {found!r:.700}")
    assert not differing, f"{len(differing)} differ\n" + "\n".join(differing)


@case
def the_list_is_long_enough_to_mean_something():
    assert len(statements()) >= 100


@case
def simple_queries_give_the_same_bytes():
    compare(lambda text: [simple(text)])


@case
def extended_queries_give_the_same_bytes_in_text_and_binary():
    compare(lambda text: [extended(text, 0), extended(text, 1)])


@case
def prepared_statements_give_the_same_bytes_each_time():
    compare(lambda text: [prepared(text, 0), prepared(text, 1)])


@case
def all_statements_in_one_message_give_the_same_bytes():
    with connect("direct") as connection:
        good = [line for line in statements() if connection.pgconn.exec_(line.encode()).status == pq.ExecStatus.TUPLES_OK
                and line.startswith(("select", "values", "with", "table"))]
    answers = []
    for role in ("direct", "dba"):
        with connect(role) as connection:
            connection.pgconn.send_query(";".join(good).encode())
            seen = []
            while result := connection.pgconn.get_result():
                seen.append(answer(result))
            answers.append(seen)
    assert len(answers[0]) == len(good) > 60
    assert answers[0] == answers[1]


main()
