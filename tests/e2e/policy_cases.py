"""Refusals as a real driver meets them: in pipelines, prepared statements, cursors; the session survives each."""

import psycopg
from psycopg import pq
from support import case, login, main, raises, reached_the_server

INSERT = "insert into orders (customer_id, item, amount, placed_at, status) values (1, %s, 1, now(), 'new')"


def connect(role="agent", **options):
    return psycopg.connect(dbname="shop", **login(role), **options)


def count(item):
    with connect("direct") as connection:
        return connection.execute("select count(*) from orders where item = %s", (item,)).fetchone()[0]


@case
def a_refusal_outside_a_transaction_leaves_the_session_idle():
    with connect(autocommit=True) as connection:
        raises("42501", lambda: connection.execute("drop table customers -- py_idle"))
        assert connection.info.transaction_status == pq.TransactionStatus.IDLE
        assert connection.execute("select 1").fetchone() == (1,)
    assert not reached_the_server("py_idle")


@case
def a_refusal_in_a_transaction_fails_it_and_rollback_mends_it():
    with connect() as connection:
        connection.execute(INSERT, ("py_in_transaction",))
        raises("42501", lambda: connection.execute("drop table customers -- py_transaction"))
        assert connection.info.transaction_status == pq.TransactionStatus.INERROR
        raises("25P02", lambda: connection.execute("select 1"))
        connection.rollback()
        assert connection.execute("select 1").fetchone() == (1,)
    assert count("py_in_transaction") == 0 and not reached_the_server("py_transaction")


@case
def a_savepoint_saves_what_came_before_a_refusal():
    with connect() as connection:
        connection.execute(INSERT, ("py_savepoint",))
        try:
            with connection.transaction():
                connection.execute("delete from orders -- py_refused_savepoint")
        except psycopg.errors.InsufficientPrivilege:
            pass
        connection.commit()
    assert count("py_savepoint") == 1 and not reached_the_server("py_refused_savepoint")


@case
def a_refused_pipeline_member_rolls_back_the_insert_before_it():
    with connect(autocommit=True) as connection:
        def work():
            with connection.pipeline():
                connection.execute(INSERT, ("py_pipeline_before",))
                connection.execute("drop table customers -- py_pipeline")
                connection.execute(INSERT, ("py_pipeline_after",))

        raises("42501", work)
        assert connection.info.transaction_status == pq.TransactionStatus.IDLE
        assert connection.execute("select 1").fetchone() == (1,)
    assert (count("py_pipeline_before"), count("py_pipeline_after")) == (0, 0)
    assert not reached_the_server("py_pipeline ")


@case
def what_was_synced_before_a_refusal_stays():
    with connect(autocommit=True) as connection:
        def work():
            with connection.pipeline() as pipeline:
                connection.execute(INSERT, ("py_synced_before",))
                pipeline.sync()
                connection.execute("truncate orders")
                connection.execute(INSERT, ("py_synced_after",))
                pipeline.sync()

        raises("42501", work)
    assert (count("py_synced_before"), count("py_synced_after")) == (1, 0)


@case
def a_statement_is_refused_when_it_is_prepared():
    with connect(autocommit=True) as connection:
        connection.prepare_threshold = 0
        raises("42501", lambda: connection.execute("delete from orders where id = %s", (1,)))
        raises("42501", lambda: connection.execute("delete from orders where id = %s", (1,)))
        raises("42501", lambda: connection.execute("prepare d as delete from orders where id = $1"))
        assert connection.execute("select %s::int", (1,)).fetchone() == (1,)


@case
def a_cursor_over_a_write_is_refused():
    with connect() as connection, connection.cursor("w") as cursor:
        raises("42501", lambda: cursor.execute("with d as (delete from orders returning *) select * from d"))


@case
def an_update_without_where_is_refused_and_with_where_it_is_judged_alone():
    with connect(autocommit=True) as connection:
        raises("42501", lambda: connection.execute("update orders set status = 'lost' /* py_update_all */"))
    assert not reached_the_server("py_update_all")


@case
def fifty_refusals_in_a_row_do_not_wear_the_session_out():
    with connect(autocommit=True) as connection:
        for number in range(50):
            raises("42501", lambda: connection.execute(f"drop table t{number}"))
            assert connection.execute("select %s::int", (number,)).fetchone() == (number,)


@case
def the_role_of_the_upstream_cannot_be_changed():
    with connect("dba", autocommit=True) as connection:
        before = connection.execute("select current_user, session_user").fetchone()
        for statement in ("set role shop", "set session authorization shop", "select set_config('role', 'shop', false)",
                          "reset role", "reset all", "discard all"):
            try:
                connection.execute(statement)
            except psycopg.Error as error:
                assert error.sqlstate in ("42501",), error
            assert connection.execute("select current_user, session_user").fetchone() == before, statement


main()
