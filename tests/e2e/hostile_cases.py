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
    "a computed column": "set search_path = public, vault; copy (select c.computed from vault.customers c) to stdout",
}

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
