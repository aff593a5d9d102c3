"""psycopg 3 and psycopg2 through the gateway, as a dba: everything an application does with them."""

import datetime
import decimal

import psycopg
import psycopg2
import psycopg2.extras
from psycopg import pq
from support import case, login, main, raises


def connect(**options):
    return psycopg.connect(dbname="shop", **login("dba"), **options)


@case
def text_and_binary_results_have_the_same_values():
    query = """select 1::int2, 2::int4, 3::int8, 1.5::float4, 2.5::float8, 12.345::numeric, true, 'text'::text,
        'bytes'::bytea, date '2026-01-02', timestamptz '2026-01-02 03:04:05+00', interval '3 days',
        '{1,2,null}'::int[], '{"a":[1,2]}'::jsonb, '2a5f1c36-8f2e-4a3e-9c5e-0a1b2c3d4e5f'::uuid, null::text,
        '10.0.0.1'::inet, int4range(1, 5)"""
    with connect() as connection:
        text = connection.execute(query).fetchone()
        binary = connection.execute(query, binary=True).fetchone()
    assert text == binary, (text, binary)
    assert text[:6] == (1, 2, 3, 1.5, 2.5, decimal.Decimal("12.345")), text


@case
def parameters_of_many_types_come_back():
    values = [1, 2**40, 1.25, decimal.Decimal("9.99"), "ünï", b"\x00\xff", True, None, datetime.date(2026, 1, 2), [1, 2, 3]]
    with connect() as connection:
        for binary in (False, True):
            for value in values:
                mark = "%b" if binary else "%t"
                row = connection.execute(f"select {mark} as v", (value,)).fetchone()
                assert row[0] == value, (value, row)


@case
def a_prepared_statement_runs_a_thousand_times():
    with connect() as connection:
        connection.prepare_threshold = 1
        for number in range(1000):
            row = connection.execute("select id, item from orders where id = %s", (1 + number % 500,)).fetchone()
            assert row[0] == 1 + number % 500
        names = connection.execute("select count(*) from pg_prepared_statements").fetchone()
        assert names[0] >= 1, "the statement was prepared on the server"


@case
def prepared_statements_are_evicted_and_prepared_again():
    with connect() as connection:
        connection.prepare_threshold = 0
        connection.prepared_max = 5
        for number in range(200):
            assert connection.execute(f"select {number % 20} + %s::int", (1,)).fetchone() == (number % 20 + 1,)


@case
def a_prepared_statement_survives_deallocate_all():
    with connect(autocommit=True) as connection:
        connection.prepare_threshold = 0
        for _ in range(3):
            connection.execute("select %s::int", (1,))
        connection.execute("deallocate all")
        assert connection.execute("select %s::int", (2,)).fetchone() == (2,)


@case
def a_pipeline_returns_everything_in_order():
    with connect() as connection, connection.pipeline():
        cursors = [connection.execute("select %s::int, repeat('x', %s)", (n, n)) for n in range(300)]
        for number, cursor in enumerate(cursors):
            assert cursor.fetchone() == (number, "x" * number)


@case
def an_error_in_a_pipeline_aborts_the_rest_up_to_sync():
    with connect(autocommit=True) as connection:
        connection.execute("create temp table piped (n int)")
        try:
            with connection.pipeline() as pipeline:
                connection.execute("insert into piped values (1)")
                connection.execute("select 1/0")
                late = connection.execute("insert into piped values (2)")
                pipeline.sync()
                late.fetchall()
        except psycopg.Error as error:
            assert error.sqlstate in ("22012", None), error
        assert connection.execute("select count(*) from piped").fetchone() == (0,)


@case
def executemany_in_a_pipeline_inserts_all_rows():
    with connect() as connection:
        connection.execute("create temp table many (n int, t text)")
        with connection.cursor() as cursor:
            cursor.executemany("insert into many values (%s, %s)", [(n, str(n)) for n in range(2000)])
            cursor.executemany("insert into many values (%s, %s) returning n", [(n, "r") for n in range(5)], returning=True)
            assert cursor.fetchone() == (0,)
        assert connection.execute("select count(*), sum(n) from many").fetchone() == (2005, 1999010)


@case
def a_server_side_cursor_walks_a_large_result():
    with connect() as connection, connection.cursor("walk") as cursor:
        cursor.itersize = 777
        cursor.execute("select n from generate_series(1, 20000) n")
        assert sum(row[0] for row in cursor) == 20000 * 20001 // 2


@case
def a_scrollable_cursor_moves_both_ways():
    with connect() as connection, connection.cursor("scroll", scrollable=True, withhold=True) as cursor:
        cursor.execute("select n from generate_series(1, 100) n")
        connection.commit()
        cursor.scroll(50)
        assert cursor.fetchone() == (51,)
        cursor.scroll(-11)
        assert cursor.fetchone() == (41,)


@case
def a_portal_can_be_read_in_slices():
    with connect() as connection:
        connection.execute("begin")
        cursor = psycopg.Cursor(connection)
        rows = [row for row in cursor.stream("select n from generate_series(1, 5000) n")]
        assert len(rows) == 5000 and rows[-1] == (5000,)


@case
def copy_goes_out_in_text_csv_and_binary():
    with connect() as connection, connection.cursor() as cursor:
        for options, minimum in [("", 100_000), ("with (format csv, header)", 100_000), ("with (format binary)", 100_000)]:
            with cursor.copy(f"copy (select * from orders where id <= 5000) to stdout {options}") as copy:
                assert sum(len(block) for block in copy) > minimum
        with cursor.copy("copy (select n, 'v' || n from generate_series(1, 1000) n) to stdout (format binary)") as copy:
            copy.set_types(["int4", "text"])
            assert list(copy.rows())[-1] == (1000, "v1000")


@case
def copy_comes_in_in_text_and_binary():
    with connect() as connection, connection.cursor() as cursor:
        cursor.execute("create temp table loaded (n int4, t text)")
        with cursor.copy("copy loaded from stdin") as copy:
            for number in range(20000):
                copy.write_row((number, f"tab\t and \\ {number}"))
        with cursor.copy("copy loaded from stdin (format binary)") as copy:
            copy.set_types(["int4", "text"])
            for number in range(20000):
                copy.write_row((number, None))
        cursor.execute("select count(*), count(t), sum(n) from loaded")
        assert cursor.fetchone() == (40000, 20000, 2 * 199990000)


@case
def a_copy_that_the_client_gives_up_leaves_nothing():
    with connect(autocommit=True) as connection:
        connection.execute("create temp table given_up (n int)")

        def give_up():
            with connection.cursor() as cursor, cursor.copy("copy given_up from stdin") as copy:
                copy.write_row((1,))
                raise ValueError("enough")

        try:
            give_up()
        except (ValueError, psycopg.errors.QueryCanceled):
            pass
        assert connection.execute("select count(*) from given_up").fetchone() == (0,)


@case
def a_copy_with_a_bad_row_is_an_error_and_the_session_goes_on():
    with connect(autocommit=True) as connection:
        connection.execute("create temp table bad (n int)")

        def load():
            with connection.cursor() as cursor, cursor.copy("copy bad from stdin") as copy:
                copy.write(b"1\nnot a number\n" + b"2\n" * 50000)

        raises("22P02", load)
        assert connection.execute("select count(*) from bad").fetchone() == (0,)


@case
def an_error_in_a_transaction_fails_it_until_rollback():
    with connect() as connection:
        raises("22012", lambda: connection.execute("select 1/0"))
        raises("25P02", lambda: connection.execute("select 1"))
        assert connection.info.transaction_status == pq.TransactionStatus.INERROR
        connection.rollback()
        assert connection.execute("select 1").fetchone() == (1,)


@case
def savepoints_roll_back_alone():
    with connect() as connection:
        connection.execute("create temp table saved (n int)")
        with connection.transaction():
            connection.execute("insert into saved values (1)")
            try:
                with connection.transaction():
                    connection.execute("insert into saved values (2)")
                    connection.execute("select 1/0")
            except psycopg.errors.DivisionByZero:
                pass
            connection.execute("insert into saved values (3)")
        assert connection.execute("select array_agg(n order by n) from saved").fetchone() == ([1, 3],)


@case
def two_phase_statements_are_answered_by_the_server():
    with connect(autocommit=True) as connection:
        connection.execute("begin")
        error = raises("55000", lambda: connection.execute("prepare transaction 'branch'"))
        assert "max_prepared_transactions" in error.diag.message_hint


@case
def several_result_sets_of_one_query_arrive():
    with connect() as connection:
        cursor = connection.execute("select 1; select 2, 3; create temp table rs (n int); select 4")
        seen = [cursor.fetchall() if cursor.description else cursor.statusmessage]
        while cursor.nextset():
            seen.append(cursor.fetchall() if cursor.description else cursor.statusmessage)
        assert seen == [[(1,)], [(2, 3)], "CREATE TABLE", [(4,)]], seen


@case
def notices_and_notifications_arrive():
    with connect(autocommit=True) as connection:
        heard = []
        connection.add_notice_handler(lambda diagnosis: heard.append(diagnosis.message_primary))
        connection.execute("do $$ begin raise notice 'listen'; end $$")
        connection.execute("listen bell")
        connection.execute("notify bell, 'ring'")
        payloads = [notify.payload for notify in connection.notifies(timeout=5, stop_after=1)]
        assert (heard, payloads) == (["listen"], ["ring"])


@case
def values_of_twenty_megabytes_go_both_ways():
    value = bytes(range(256)) * (20 * 4096)
    with connect() as connection:
        for binary in (False, True):
            row = connection.execute("select %b::bytea, length(%b::bytea)", (value, value), binary=binary).fetchone()
            assert row == (value, len(value))


@case
def a_row_of_a_thousand_columns_arrives():
    columns = ", ".join(f"{number} as c{number}" for number in range(1600))
    with connect() as connection:
        assert connection.execute(f"select {columns}").fetchone() == tuple(range(1600))


@case
def sixty_five_thousand_parameters_are_bound():
    count = 65535
    marks = ", ".join(["(%s)"] * count)
    with connect() as connection:
        row = connection.execute(f"select sum(v) from (values {marks}) as t(v)", list(range(count))).fetchone()
        assert row == (count * (count - 1) // 2,)


@case
def two_hundred_connections_one_after_the_other():
    for _ in range(200):
        with connect() as connection:
            assert connection.execute("select 1").fetchone() == (1,)


@case
def fifty_connections_at_once():
    connections = [connect(autocommit=True) for _ in range(50)]
    pids = {connection.execute("select pg_backend_pid()").fetchone()[0] for connection in connections}
    assert len(pids) == 50
    for connection in connections:
        connection.close()


@case
def psycopg2_works_as_before():
    connection = psycopg2.connect(dbname="shop", **login("dba"))
    with connection, connection.cursor(cursor_factory=psycopg2.extras.DictCursor) as cursor:
        cursor.execute("select id, item from orders where id = any(%s) order by id", ([1, 2, 3],))
        assert [row["id"] for row in cursor.fetchall()] == [1, 2, 3]
        psycopg2.extras.execute_values(cursor, "create temp table v2 (n int); insert into v2 values %s", [(n,) for n in range(90)])
        cursor.execute("select count(*) from v2")
        assert cursor.fetchone()[0] == 90
    with connection, connection.cursor("named") as cursor:
        cursor.execute("select n from generate_series(1, 10000) n")
        assert sum(1 for _ in cursor) == 10000
    connection.close()


@case
def psycopg2_survives_errors_and_copies():
    connection = psycopg2.connect(dbname="shop", **login("dba"))
    with connection.cursor() as cursor:
        raises("42P01", lambda: cursor.execute("select * from no_such_table"))
        connection.rollback()
        import io

        cursor.execute("create temp table c2 (n int, t text)")
        cursor.copy_expert("copy c2 from stdin", io.StringIO("1\tone\n2\ttwo\n"))
        out = io.StringIO()
        cursor.copy_expert("copy c2 to stdout", out)
        assert out.getvalue() == "1\tone\n2\ttwo\n"
    connection.close()


@case
def texts_and_values_come_and_go_in_other_encodings():
    rows = [("latin1", "Müller"), ("latin9", "5 €"), ("win1251", "Привет"), ("koi8r", "Привет"), ("win866", "Привет")]
    rows += [("euc_jp", "日本"), ("euc_kr", "한국"), ("euc_cn", "中国"), ("utf8", "ünï")]
    for encoding, value in rows:
        for role in ("dba", "analyst"):
            with psycopg.connect(dbname="shop", client_encoding=encoding, **login(role)) as connection:
                literal = psycopg.ClientCursor(connection).execute("select %s, 1", (value,)).fetchone()
                assert literal == (value, 1), (encoding, role, literal)
                assert connection.execute("select %s::text", (value,)).fetchone() == (value,), (encoding, role)
        with connect() as connection:
            connection.execute(f"set client_encoding to {encoding}")
            assert psycopg.ClientCursor(connection).execute("select %s", (value,)).fetchone() == (value,), encoding
        connection = psycopg2.connect(dbname="shop", **login("dba"))
        connection.set_client_encoding(encoding)
        cursor = connection.cursor()
        cursor.execute("select %s", (value,))
        assert cursor.fetchone() == (value,), encoding
        connection.close()


@case
def a_client_is_known_by_the_servers_process_id():
    with connect(autocommit=True) as connection:
        assert connection.execute("select pg_backend_pid()").fetchone() == (connection.info.backend_pid,)
        connection.execute("listen own")
        connection.execute("notify own, 'hello'")
        for notify in connection.notifies(timeout=5, stop_after=1):
            assert (notify.pid, notify.payload) == (connection.info.backend_pid, "hello"), notify
        with connect(autocommit=True) as other:
            ended = other.execute("select pg_terminate_backend(%s)", (connection.info.backend_pid,))
            assert ended.fetchone() == (True,)
        raises("57P01", lambda: connection.execute("select 1"))


@case
def settings_in_options_are_as_they_were_set():
    options = "-c jit=off -c work_mem=9MB -c app.tenant=a\\ b -c default_transaction_isolation=serializable"
    with connect(options=options, application_name="a tool") as connection:
        names = ("jit", "work_mem", "app.tenant", "transaction_isolation", "application_name")
        values = [connection.execute(f"show {name}").fetchone()[0] for name in names]
    assert values == ["off", "9MB", "a b", "serializable", "a tool"], values


main()
