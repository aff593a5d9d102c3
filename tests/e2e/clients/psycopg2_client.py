"""psycopg 2: simple queries only, COPY by files, and large objects over the fast path."""

import io
import select
import threading

import psycopg2
import psycopg2.extras
from psycopg2.extensions import ISOLATION_LEVEL_AUTOCOMMIT

from case import MAKE, SCHEMA, VALUES, case, main, refusal


def connect(autocommit=False):
    connection = psycopg2.connect("", options=f"-c search_path={SCHEMA},public")
    if autocommit:
        connection.set_isolation_level(ISOLATION_LEVEL_AUTOCOMMIT)
    return connection


def ask(connection, text, values=None):
    cursor = connection.cursor()
    cursor.execute(text, values)
    return cursor.fetchall()


@case("introspection")
def types_and_columns_are_looked_up():
    connection = connect(autocommit=True)
    connection.cursor().execute(MAKE)
    place = psycopg2.extras.register_composite(f"{SCHEMA}.place", connection)
    cursor = connection.cursor()
    cursor.execute("select * from pet order by id limit 1")
    columns = [(c.name, c.display_size, c.internal_size, c.precision, c.scale) for c in cursor.description]
    return place.attnames, place.atttypes, columns, cursor.fetchone()[:6]


@case("introspection")
def the_standard_views_are_read():
    connection = connect()
    return [sorted(map(repr, ask(connection, f"select {columns} from information_schema.{view} where {where} = %s", (SCHEMA,))))
            for view, columns, where in (
                ("tables", "table_name, table_type", "table_schema"),
                ("columns", "table_name, column_name, ordinal_position, column_default, is_nullable, udt_name", "table_schema"),
                # Names of NOT NULL hold numbers of the catalogue.
                ("table_constraints", "table_name, constraint_type, constraint_name", "constraint_name !~ '^[0-9]' and table_schema"),
                ("key_column_usage", "constraint_name, column_name, ordinal_position", "table_schema"),
                ("views", "table_name, view_definition", "table_schema"),
                ("routines", "routine_name, data_type", "specific_schema"),
                ("domains", "domain_name, data_type", "domain_schema"),
            )]


@case("prepared")
def statements_are_prepared_by_sql():
    connection = connect()
    cursor = connection.cursor()
    cursor.execute("prepare p (int) as select name from pet where id = $1")
    return [ask(connection, "execute p (%s)", (n,)) for n in (1, 2, 200, 201)]


@case("binary")
def values_of_every_type_are_read():
    return ask(connect(), VALUES)


@case("binary")
def bytes_go_in_and_out():
    return ask(connect(), "select %s::bytea", (psycopg2.Binary(bytes(range(256)) * 20),))


@case("copy")
def copies_go_in_and_out():
    outcome = []
    connection = connect()
    cursor = connection.cursor()
    cursor.execute("create temp table copied (n int, t text, b bytea)")
    for form in ("text", "csv", "binary"):
        out = io.BytesIO()
        cursor.copy_expert(f"copy pet (legs, name, photo) to stdout (format {form})", out)
        cursor.execute("truncate copied")
        cursor.copy_expert(f"copy copied from stdin (format {form})", io.BytesIO(out.getvalue()))
        cursor.execute("select count(*), sum(n), sum(length(t)), md5(string_agg(b, '' order by t)) from copied")
        outcome.append((form, len(out.getvalue()), cursor.fetchone()))
    return outcome


@case("copy")
def a_copy_that_fails_says_why():
    connection = connect()
    return refusal(lambda: connection.cursor().copy_from(io.StringIO("x\n"), "owner", columns=("id",)))


@case("cancel")
def a_statement_is_cancelled():
    connection = connect()
    threading.Timer(0.3, connection.cancel).start()
    outcome = refusal(lambda: ask(connection, "select pg_sleep(30)"))
    connection.rollback()
    return outcome, ask(connection, "select 'goes on'")


@case("notify")
def a_notification_arrives():
    hears, rings = connect(autocommit=True), connect(autocommit=True)
    hears.cursor().execute(f"listen {SCHEMA}_bell")
    rings.cursor().execute(f"notify {SCHEMA}_bell, 'ring'")
    select.select([hears], [], [], 10)
    hears.poll()
    return [(n.channel, n.payload) for n in hears.notifies]


@case("large objects")
def a_large_object_is_written_read_moved_in_and_cut():
    connection = connect()
    thing = connection.lobject(0, "rwb")
    oid = thing.oid
    wrote = thing.write(bytes(range(256)) * 1000)
    thing.close()
    thing = connection.lobject(oid, "rwb")
    seen = [wrote, thing.read(10), thing.seek(255999), thing.read(), thing.tell()]
    thing.seek(100)
    thing.write(b"xyz")
    thing.truncate(103)
    thing.seek(0)
    seen += [len(thing.read()), thing.seek(0, 2)]
    thing.unlink()
    connection.commit()
    try:
        connection.lobject(oid, "rb")
    except psycopg2.OperationalError as error:
        # It has no SQLSTATE, and the object's number in its text.
        seen.append(str(error).replace(str(oid), "N"))
    return seen


@case("large objects")
def a_large_value_passes_in_one_piece():
    connection = connect()
    thing = connection.lobject(0, "rwb")
    thing.write(b"0123456789abcdef" * 400_000)
    thing.seek(0)
    data = thing.read()
    thing.unlink()
    return len(data), data[:16], data[-16:]


@case("large objects")
def files_are_imported_and_exported(path="large.object"):
    connection = connect()
    with open(path, "wb") as file:
        file.write(bytes(range(256)) * 300)
    thing = connection.lobject(0, "n", 0, path)
    thing.export(path + ".out")
    with open(path + ".out", "rb") as file:
        data = file.read()
    thing.unlink()
    return len(data), data == bytes(range(256)) * 300


@case("cursors")
def a_named_cursor_fetches_in_batches():
    connection = connect()
    cursor = connection.cursor("named", scrollable=True)
    cursor.itersize = 50
    cursor.execute("select id, name from pet order by id")
    seen = [cursor.fetchone(), cursor.fetchmany(2)]
    cursor.scroll(100)
    return seen, cursor.fetchone(), len(cursor.fetchall())


@case("transactions")
def two_phases_and_isolation_levels():
    connection = connect()
    connection.set_session(isolation_level="SERIALIZABLE", readonly=True)
    outcome = [ask(connection, "show transaction_isolation"), refusal(lambda: connection.cursor().execute("create table x (n int)"))]
    connection.rollback()
    return outcome, connection.get_transaction_status(), connection.encoding


@case("transactions")
def many_rows_go_in_at_once():
    connection = connect()
    cursor = connection.cursor()
    cursor.execute("create temp table many (n int, t text)")
    psycopg2.extras.execute_values(cursor, "insert into many values %s", [(n, str(n)) for n in range(3000)])
    psycopg2.extras.execute_batch(cursor, "insert into many values (%s, %s)", [(n, str(n)) for n in range(500)])
    return ask(connection, "select count(*), sum(n) from many")


@case("errors")
def errors_and_notices():
    connection = connect(autocommit=True)
    outcome = [refusal(lambda text=text: connection.cursor().execute(text)) for text in (
        "select * from nowhere", "select 1 / 0", "selec 1", "insert into owner (name) values ('owner 1')", "select lo_get(0)")]
    connection.cursor().execute("do $$ begin raise notice 'one'; end $$")
    return outcome, connection.notices


main()
