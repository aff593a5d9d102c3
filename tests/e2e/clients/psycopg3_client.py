"""psycopg 3: it prepares by itself, has pipelines, and reads both formats."""

import threading

import psycopg
from psycopg.rows import dict_row
from psycopg.types.composite import CompositeInfo
from psycopg.types.enum import EnumInfo
from psycopg.types.range import RangeInfo

from case import MAKE, SCHEMA, VALUES, case, main, refusal, sqlstate


def connect(**options):
    return psycopg.connect(options=f"-c search_path={SCHEMA},public", **options)


@case("introspection")
def types_are_looked_up():
    with connect(autocommit=True) as connection:
        connection.execute(MAKE)
        enum = EnumInfo.fetch(connection, f"{SCHEMA}.mood")
        place = CompositeInfo.fetch(connection, f"{SCHEMA}.place")
        ranges = RangeInfo.fetch(connection, "int4range")
        return [enum.labels, place.field_names, place.field_types, ranges.subtype_oid]


@case("introspection")
def columns_are_described():
    with connect() as connection:
        cursor = connection.execute(f"select * from {SCHEMA}.pet limit 0")
        return [(c.name, c.display_size, c.internal_size, c.precision, c.scale) for c in cursor.description]


@case("prepared")
def statements_are_prepared_and_run_again():
    with connect() as connection:
        seen = [connection.execute("select name from pet where id = %s", (n,), prepare=True).fetchone() for n in range(1, 30)]
        names = connection.execute("select count(*) from pg_prepared_statements").fetchone()
        connection.execute("deallocate all")
        return seen, names, connection.execute("select name from pet where id = %s", (3,), prepare=True).fetchall()


@case("binary")
def values_of_every_type_are_read_in_both_formats():
    with connect() as connection:
        return [list(connection.cursor(binary=binary).execute(VALUES).fetchone()) for binary in (False, True)]


@case("binary")
def parameters_go_in_both_formats():
    with connect(row_factory=dict_row) as connection:
        values = (7, "text", b"\x00\x01", [1, 2], 2.5)
        text = connection.execute("select %t::int a, %t::text b, %t::bytea c, %t::int[] d, %t::float8 e", values).fetchone()
        binary = connection.execute("select %b::int a, %b::text b, %b::bytea c, %b::int[] d, %b::float8 e", values).fetchone()
        return text, binary


@case("copy")
def copies_go_in_and_out_in_each_format():
    outcome = []
    with connect() as connection:
        for form in ("text", "csv", "binary"):
            with connection.cursor() as cursor:
                cursor.execute("create temp table if not exists copied (n int, t text, b bytea); truncate copied")
                with cursor.copy(f"copy pet (legs, name, photo) to stdout (format {form})") as copy:
                    data = b"".join(bytes(part) for part in copy)
                with cursor.copy(f"copy copied from stdin (format {form})") as copy:
                    for at in range(0, len(data), 999):
                        copy.write(data[at : at + 999])
                cursor.execute("select count(*), sum(n), sum(length(t)), md5(string_agg(b, '' order by t)) from copied")
                outcome.append((form, len(data), cursor.fetchone()))
        connection.rollback()
    return outcome


@case("copy")
def rows_are_written_one_by_one():
    with connect() as connection, connection.cursor() as cursor:
        cursor.execute("create temp table rows (n int, t text)")
        with cursor.copy("copy rows from stdin") as copy:
            for n in range(5000):
                copy.write_row((n, f"tab\t{n}\n\\"))
        return cursor.execute("select count(*), sum(n), max(t) from rows").fetchone()


@case("copy")
def a_copy_that_fails_says_why():
    with connect() as connection:
        def wrong():
            with connection.cursor().copy("copy owner (id) from stdin") as copy:
                copy.write("no number\n")

        return refusal(wrong), connection.info.transaction_status.name


@case("cancel")
def a_statement_is_cancelled():
    outcome = []
    for cancel in ("cancel", "cancel_safe"):
        with connect() as connection:
            threading.Timer(0.3, getattr(connection, cancel)).start()
            outcome.append(refusal(lambda: connection.execute("select pg_sleep(30)")))
            connection.rollback()
            outcome.append(connection.execute("select 'goes on'").fetchone())
    return outcome


@case("notify")
def a_notification_arrives():
    channel = f"{SCHEMA}_bell"
    with connect(autocommit=True) as hears, connect(autocommit=True) as rings:
        hears.execute(f"listen {channel}")
        rings.execute(f"notify {channel}, 'first'")
        rings.execute("select pg_notify(%s, %s)", (channel, "second ü"))
        return [(n.channel, n.payload) for n in hears.notifies(timeout=10, stop_after=2)]


@case("large objects")
def large_objects_are_used_by_sql():
    with connect() as connection:
        oid = connection.execute("select lo_from_bytea(0, 'hello')").fetchone()[0]
        read = connection.execute("select lo_get(%s)", (oid,)).fetchone()
        return read, connection.execute("select lo_unlink(%s)", (oid,)).fetchone()


@case("pipeline")
def a_pipeline_gives_all_results_in_order():
    with connect() as connection, connection.pipeline() as pipeline:
        cursors = [connection.execute("select %s::int * 2, name from pet where id = %s", (n, n)) for n in range(1, 200)]
        pipeline.sync()
        return [cursor.fetchone() for cursor in cursors[:5]], sum(cursor.fetchone()[0] for cursor in cursors[5:])


@case("pipeline")
def a_failing_member_of_a_pipeline_takes_the_rest_with_it():
    with connect(autocommit=True) as connection:
        connection.execute("create temp table kept (n int)")
        seen = []
        try:
            with connection.pipeline():
                connection.execute("insert into kept values (1)")
                failing = connection.execute("select 1 / 0")
                connection.execute("insert into kept values (2)")
                failing.fetchone()
        except psycopg.Error as error:
            seen.append(sqlstate(error))
        return seen, connection.execute("select array_agg(n) from kept").fetchone()


@case("pipeline")
def many_rows_go_in_by_executemany():
    with connect() as connection:
        connection.execute("create temp table many (n int, t text)")
        cursor = connection.cursor()
        cursor.executemany("insert into many values (%s, %s) returning n", [(n, str(n)) for n in range(2000)], returning=True)
        return connection.execute("select count(*), sum(n) from many").fetchone(), cursor.fetchone()


@case("cursors")
def a_server_side_cursor_scrolls():
    with connect() as connection, connection.cursor("scrolls", scrollable=True) as cursor:
        cursor.execute("select name from pet order by id")
        seen = [cursor.fetchmany(3), cursor.fetchone()]
        cursor.scroll(-2)
        seen.append(cursor.fetchone())
        cursor.scroll(150, mode="absolute")
        return seen + [cursor.fetchall()]


@case("cursors")
def a_statement_is_streamed_row_by_row():
    with connect() as connection:
        return sum(row[0] for row in connection.cursor().stream("select n from generate_series(1, 30000) n"))


@case("transactions")
def nested_transactions_and_errors():
    with connect(autocommit=True) as connection:
        connection.execute("create temp table nested (n int)")
        with connection.transaction():
            connection.execute("insert into nested values (1)")

            def inner():
                with connection.transaction():
                    connection.execute("insert into nested values (2)")
                    connection.execute("insert into owner (name) values (null)")

            outcome = refusal(inner)
            connection.execute("insert into nested values (3)")
        return outcome, connection.execute("select array_agg(n order by n) from nested").fetchone()


@case("errors")
def errors_have_all_their_fields():
    outcome = []
    with connect(autocommit=True) as connection:
        for text in (
            "select * from no_such_table",
            "select 1 / 0",
            "insert into owner (name) values ('owner 1')",
            "insert into pet (owner_id, name) values (999, 'x')",
            "insert into pet (owner_id, name, weight) values (1, 'x', -1)",
            "select nothing_like_it(1)",
            "selec 1",
            "select 'a' as a from from pet",
            "do $$ begin raise exception 'own %', 1 using errcode = 'WW001', detail = 'd', hint = 'h'; end $$",
        ):
            try:
                connection.execute(text)
                outcome.append("FAILED nothing was refused")
            except psycopg.Error as error:
                d = error.diag
                fields = (d.severity, d.sqlstate, d.message_primary, d.message_detail, d.message_hint, d.statement_position, d.context,
                          d.schema_name, d.table_name, d.column_name, d.constraint_name)
                outcome.append(fields)
    return outcome


@case("errors")
def notices_arrive():
    heard = []
    with connect(autocommit=True) as connection:
        connection.add_notice_handler(lambda d: heard.append((d.severity, d.sqlstate, d.message_primary, d.message_detail)))
        connection.execute("do $$ begin raise notice 'one'; raise warning 'two' using detail = 'more'; end $$")
        connection.execute("drop table if exists no_such_table")
    return heard


main()
