"""Values that no detector knows: what hides them is their origin alone. And what an agent may not do by another way."""

import psycopg
from support import Tap, case, login, main

# A text without digits, read backwards: no detector finds it, and no mask of a column may let it pass.
SECRET = "quinceblossom"
TURNED = SECRET[::-1]

TABLE = """
    create schema if not exists vault;
    create table if not exists vault.customers (
        id int, twice int generated always as (id * 2) stored, ssn text, name text, email text,
        turned text generated always as (reverse(ssn)) stored
    );
    truncate vault.customers;
    insert into vault.customers (id, ssn, name, email) values (1, '{0}', 'Ada', '{0}');
    create or replace function vault.computed(c vault.customers) returns text language sql as 'select reverse(c.ssn)';
    create or replace function vault.told() returns table (told text) language plpgsql as
        $$begin return query select c.ssn from vault.customers c; end$$;
    create or replace view vault.hearsay as select told from vault.told();
"""

ROWS = {
    "a whole row": "select c from vault.customers c",
    "a whole row by its table's name": "select customers from vault.customers",
    "a whole row out of a sub-query": "select x from (select c as x from vault.customers c) s",
    "a view of a function": "select * from vault.hearsay",
    "a column generated from a masked one": "select turned from vault.customers",
    "a whole row in a cursor": "begin; declare k cursor for select c from vault.customers c; fetch k; commit",
}

COPIES = {
    "a table with a generated column": "copy vault.customers to stdout",
    "a column generated from a masked one": "copy (select turned from vault.customers) to stdout",
    "a cast that names a column": """copy (select (select text from (select (reverse(ssn) || '')::text
        from vault.customers) s) from orders limit 1) to stdout""",
    "a case that names a column": """copy (select (select item from (select (case when true then item else item end)::text
        from (select reverse(ssn) as item from vault.customers) z) s) from orders limit 1) to stdout""",
    "a star that names a column": """copy (select (select item from (select (select s.* from
        (select reverse(ssn) as item from vault.customers) s)) x) from orders limit 1) to stdout""",
    "a row's function written as a column": "copy (select c.record_out from vault.customers c) to stdout",
    "a marker for NULL that takes the delimiter with it": r"""copy (select null::text, ssn, null::text, 'pad', 'q'
        from vault.customers) to stdout (null '\', delimiter ',')""",
    "the same in the old syntax": r"""copy (select null::text, ssn, null::text, 'pad', 'q'
        from vault.customers) to stdout delimiter ',' null '\'""",
    "a marker for NULL that ends in an escape": r"""copy (select null::text, ssn, null::text, 'pad', 'q'
        from vault.customers) to stdout (null 'x\')""",
    "a marker for NULL that is a star": """copy (select null::text, ssn, null::text, 'pad', 'q'
        from vault.customers) to stdout (delimiter *, null *)""",
    "a marker for NULL that opens a quote": """copy (select null::text, ssn, null::text, 'pad', 'q'
        from vault.customers) to stdout (format csv, null '"')""",
    "a quote that is a letter": """copy (select 'aq', ssn, 'qa' from vault.customers) to stdout (format csv, quote 'q')""",
    "an escape that is the delimiter": """copy (select 'a,"', ssn, '"' from vault.customers)
        to stdout (format csv, escape ',')""",
    "quotes in values behind an escape": r"""copy (select 'a"\', ssn, '\"' from vault.customers)
        to stdout (format csv, escape '\')""",
    "an escape at the end of a bare value": r"""copy (select 'a\', ssn, 'b\' from vault.customers)
        to stdout (format csv, escape '\')""",
    "escapes in values": r"""copy (select E'a\\', E'\\\t', ssn, E'\t\\' from vault.customers) to stdout""",
    "a header that is none": """copy (select ssn from vault.customers) to stdout (format csv, header false)""",
    "a header twice": """copy (select ssn from vault.customers) to stdout (header, header off)""",
    "a computed column": "set search_path = public, vault; copy (select c.computed from vault.customers c) to stdout",
}

# What no detector may miss however COPY writes it.
NOTED = {
    "a delimiter in an address": "copy (select 'ben.private@example.net') to stdout (delimiter '@')",
    "a delimiter in a number": "copy (select '123-45-6789') to stdout (delimiter '-')",
    "a quote in an address": "copy (select 'ben.private@example.net') to stdout (format csv, quote '@')",
    "an escape in an address": "copy (select 'ben.private@example.net') to stdout (format csv, escape '@', force_quote *)",
    "an address between quotes": """copy (select '"ben.private@example.net"') to stdout (format csv)""",
    "an address behind an escape": r"copy (select E'\\ben.private@example.net\t') to stdout",
    "an address in binary": "copy (select 7::int8, 'ben.private@example.net'::text) to stdout (format binary)",
    "an array in binary": "copy (select array['ben.private@example.net', '123-45-6789']) to stdout (format binary)",
    "a large row in binary": """copy (select 7, repeat('x, "', 20000) || ' ben.private@example.net ') to stdout (format binary)""",
    "a large row of quotes": """copy (select repeat('x, "', 20000) || ' ben.private@example.net ' || repeat('y', 9000))
        to stdout csv""",
    "a large row of escapes": r"copy (select repeat(E'\t\\', 20000) || ' ben.private@example.net ') to stdout",
}
NOTES = (b"private", b"example.net", b"123", b"6789")

LAUNDRY = """insert into orders (customer_id, item, amount, placed_at, status)
    select 1, {value}, 1, now(), 'washed' from {source}"""

WASHED = {
    "a generated column": ("c.turned", "vault.customers c"),
    "renamed columns": ("c.name", "vault.customers as c (id, twice, name, x, y)"),
    "renamed columns of a join": ("j.name", "(vault.customers c cross join (values (1)) v) as j (id, twice, name, x, y)"),
}

EVERY_ROW = [
    "update orders set status = status where true",
    "merge into orders using (select 1) s on true when matched then update set status = status",
]


def prepare():
    """Makes the table, and waits until the gateway knows it: an unknown one is masked whole."""
    with psycopg.connect(dbname="shop", autocommit=True, **login("direct")) as connection:
        connection.execute(TABLE.format(SECRET))
    with psycopg.connect(dbname="shop", autocommit=True, **login("analyst")) as connection:
        for _ in range(200):
            if connection.execute("select name from vault.customers").fetchone() == ("Ada",):
                return
            connection.execute("select pg_sleep(0.1)")
    raise AssertionError("the gateway has not read the catalogue")


def received(role, run):
    prepare()
    tap = Tap()
    with psycopg.connect(dbname="shop", autocommit=True, **login(role, tap.port)) as connection:
        try:
            run(connection)
        except psycopg.Error as error:
            assert not connection.broken, error
    return tap.in_clear()


def hides(name, run):
    def check():
        seen = received("analyst", run)
        for value in (SECRET, TURNED):
            assert value.encode() not in seen, seen[-400:]

    check.__name__ = "hidden_is_" + name.replace(" ", "_").replace("'", "")
    case(check)


def copying(text):
    *before, last = text.split("; ")

    def run(connection):
        for statement in before:
            connection.execute(statement)
        with connection.cursor() as cursor, cursor.copy(last) as copy:
            for _ in copy:
                pass

    return run


for name, text in ROWS.items():
    hides(name + " in text", lambda connection, text=text: connection.execute(text))
    if ";" not in text:
        hides(name + " in binary", lambda connection, text=text: connection.execute(text, binary=True))
for name, text in COPIES.items():
    hides(name, copying(text))


def detects(name, text):
    def check():
        seen = received("analyst", copying(text))
        for value in NOTES:
            assert value not in seen, seen[-400:]

    check.__name__ = "detected_is_" + name.replace(" ", "_")
    case(check)


for name, text in NOTED.items():
    detects(name, text)

HONEST = [
    "copy orders to stdout",
    "copy orders to stdout (format binary)",
    "copy binary orders to stdout",
    "copy (select count(*), sum(amount) from orders) to stdout (format binary)",
    "copy orders to stdout (format csv, header, delimiter ';', null 'NULL', force_quote *)",
    "copy (select id, item from orders order by id limit 3) to stdout with csv header quote ''''",
    "copy (select item from orders order by id limit 3) to stdout (delimiter '|', null '')",
]


@case
def an_honest_copy_gives_what_it_gives_directly():
    for text in HONEST:
        seen = []
        for role in ("direct", "analyst"):
            with psycopg.connect(dbname="shop", **login(role)) as connection:
                with connection.cursor() as cursor, cursor.copy(text) as copy:
                    seen.append(b"".join(bytes(part) for part in copy))
        assert seen[0] == seen[1], text


@case
def a_refused_option_of_copy_is_named_with_the_remedy_and_refused_to_nobody_without_masks():
    for text, words in (
        (r"copy orders to stdout (null '\')", "NULL"),
        ("copy orders to stdout (delimiter '@')", "DELIMITER '@'"),
        ("copy orders to stdout (encoding 'latin1')", "ENCODING latin1"),
    ):
        with psycopg.connect(dbname="shop", **login("analyst")) as connection:
            try:
                connection.execute(text)
                raise AssertionError(f"{text} ran")
            except psycopg.errors.InsufficientPrivilege as error:
                assert words in error.diag.message_detail and error.diag.message_hint, error
        with psycopg.connect(dbname="shop", **login("dba")) as connection:
            with connection.cursor() as cursor, cursor.copy(text) as copy:
                assert sum(len(part) for part in copy) > 1000, text



def refused(name, text):
    def check():
        prepare()
        with psycopg.connect(dbname="shop", **login("agent")) as connection:
            try:
                connection.execute(text)
            except psycopg.errors.InsufficientPrivilege:
                return
            finally:
                connection.rollback()
        raise AssertionError(f"{text} ran")

    check.__name__ = "refused_is_" + name.replace(" ", "_")
    case(check)


refused("a cursor by the gateway's own name", 'declare "blocked by wireward" cursor for select 1')
for name, (value, source) in WASHED.items():
    refused("the washing of " + name, LAUNDRY.format(value=value, source=source))
for number, text in enumerate(EVERY_ROW):
    refused(f"a write to every row, way {number}", text)


@case
def a_search_path_that_hides_the_catalog_is_refused_at_startup():
    for extra in ({"options": "-c search_path=public,pg_catalog"}, {"options": "--search-path=public,pg_catalog"}):
        try:
            psycopg.connect(dbname="shop", **extra, **login("analyst")).close()
        except psycopg.OperationalError as error:
            assert "pg_catalog" in str(error), error
        else:
            raise AssertionError(extra)


main()
