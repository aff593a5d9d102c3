"""asyncpg through the gateway, as a dba. It speaks only binary and re-executes without Describe."""

import asyncio
import datetime
import decimal
import io

import asyncpg
from support import case, login, main


async def connect(role="dba", **options):
    return await asyncpg.connect(database="shop", **login(role), **options)


async def raises(kind, awaitable):
    try:
        await awaitable
    except kind as error:
        return error
    raise AssertionError(f"expected {kind.__name__}")


@case
async def many_types_come_back_as_they_went():
    connection = await connect()
    now = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)
    rows = [("int8", 2**40), ("text", "ünï"), ("bytea", b"\0\xff"), ("numeric", decimal.Decimal("1.50")), ("timestamptz", now),
            ("int[]", [1, None, 3]), ("jsonb", '{"a": 1}'), ("bool", True), ("float8", 1.25), ("date", now.date())]
    for kind, value in rows:
        assert await connection.fetchval(f"select $1::{kind}", value) == value, kind
    await connection.close()


@case
async def a_prepared_statement_runs_a_thousand_times():
    connection = await connect()
    statement = await connection.prepare("select id, item, amount from orders where id = $1")
    for number in range(1000):
        row = await statement.fetchrow(1 + number % 300)
        assert row["id"] == 1 + number % 300
    await connection.close()


@case
async def many_different_statements_overflow_the_cache():
    connection = await connect(statement_cache_size=10)
    for number in range(300):
        assert await connection.fetchval(f"select {number % 40} + $1::int", 1) == number % 40 + 1
    await connection.close()


@case
async def a_statement_works_again_after_its_table_changed():
    connection = await connect()
    await connection.execute("create temp table shifting (a int); insert into shifting values (1)")
    assert await connection.fetchrow("select * from shifting") == (1,)
    await connection.execute("alter table shifting add column b text default 'new'")
    assert tuple(await connection.fetchrow("select * from shifting")) == (1, "new")
    await connection.close()


@case
async def re_execution_sees_tables_that_another_session_has_swapped():
    owner = await connect()
    await owner.execute("drop table if exists left_t, right_t; create table left_t (v text); create table right_t (v text)")
    await owner.execute("insert into left_t values ('left'); insert into right_t values ('right')")
    reader = await connect()
    statement = await reader.prepare("select v from left_t")
    assert await statement.fetchval() == "left"
    await owner.execute("begin; alter table left_t rename to x_t; alter table right_t rename to left_t; "
                        "alter table x_t rename to right_t; commit")
    assert await statement.fetchval() == "right"
    await owner.execute("drop table left_t, right_t")
    await owner.close()
    await reader.close()


@case
async def a_cursor_walks_a_large_result_in_slices():
    connection = await connect()
    async with connection.transaction():
        total = 0
        async for row in connection.cursor("select n from generate_series(1, 20000) n", prefetch=333):
            total += row["n"]
        assert total == 20000 * 20001 // 2
        cursor = await connection.cursor("select n from generate_series(1, 100) n")
        await cursor.forward(10)
        assert (await cursor.fetchrow())["n"] == 11
        assert len(await cursor.fetch(1000)) == 89
    await connection.close()


@case
async def nested_transactions_roll_back_alone():
    connection = await connect()
    await connection.execute("create temp table nested (n int)")
    async with connection.transaction():
        await connection.execute("insert into nested values (1)")
        try:
            async with connection.transaction():
                await connection.execute("insert into nested values (2)")
                await connection.execute("select 1/0")
        except asyncpg.DivisionByZeroError:
            pass
        await connection.execute("insert into nested values (3)")
    assert await connection.fetchval("select array_agg(n order by n) from nested") == [1, 3]
    await connection.close()


@case
async def an_error_leaves_the_session_usable():
    connection = await connect()
    await raises(asyncpg.UndefinedTableError, connection.fetch("select * from no_such_table"))
    await raises(asyncpg.DivisionByZeroError, connection.fetch("select 1 / $1::int", 0))
    await raises(asyncpg.PostgresSyntaxError, connection.execute("selec 1"))
    assert await connection.fetchval("select 1") == 1
    await connection.close()


@case
async def copy_goes_out_and_comes_in():
    connection = await connect()
    await connection.execute("create temp table copied (n int, t text)")
    await connection.copy_records_to_table("copied", records=[(n, f"v{n}") for n in range(20000)])
    assert await connection.fetchval("select count(*) from copied") == 20000
    out = io.BytesIO()
    await connection.copy_from_query("select n, t from copied order by n", output=out)
    assert out.getvalue().startswith(b"0\tv0\n1\tv1\n") and out.getvalue().count(b"\n") == 20000
    await connection.copy_to_table("copied", source=io.BytesIO(out.getvalue()))
    assert await connection.fetchval("select count(*) from copied") == 40000
    await connection.close()


@case
async def executemany_inserts_all_rows():
    connection = await connect()
    await connection.execute("create temp table many (n int, t text)")
    await connection.executemany("insert into many values ($1, $2)", [(n, str(n)) for n in range(5000)])
    assert await connection.fetchval("select sum(n) from many") == 4999 * 2500
    await connection.close()


@case
async def a_pool_resets_its_connections():
    async with asyncpg.create_pool(database="shop", min_size=1, max_size=1, **login("dba")) as pool:
        async with pool.acquire() as connection:
            pid = connection.get_server_pid()
            await connection.execute("set work_mem = '77MB'; set search_path = pg_catalog; listen bell")
            await connection.execute("create temp table stays (n int)")
        for _ in range(20):
            async with pool.acquire() as connection:
                assert connection.get_server_pid() == pid
                assert await connection.fetchval("show work_mem") != "77MB"
                assert await connection.fetchval("show standard_conforming_strings") == "on"
                assert await connection.fetchval("select count(*) from pg_listening_channels()") == 0
                assert await connection.fetchval("select count(*) from orders") >= 30000


@case
async def a_pool_serves_many_tasks_at_once():
    async def work(pool, number):
        async with pool.acquire() as connection:
            return await connection.fetchval("select $1::int * 2", number)

    async with asyncpg.create_pool(database="shop", min_size=5, max_size=20, **login("dba")) as pool:
        results = await asyncio.gather(*(work(pool, number) for number in range(500)))
    assert results == [number * 2 for number in range(500)]


@case
async def introspection_of_unknown_types_works():
    connection = await connect()
    await connection.execute("drop type if exists pair; create type pair as (a int, b text)")
    assert tuple(await connection.fetchval("select (1, 'x')::pair")) == (1, "x")
    assert await connection.fetchval("select array[(1, 'x')::pair]::text") == '{"(1,x)"}'
    await connection.execute("drop type pair")
    await connection.close()


@case
async def a_notification_arrives():
    connection = await connect()
    heard = asyncio.get_running_loop().create_future()
    await connection.add_listener("bell", lambda *arguments: heard.done() or heard.set_result(arguments[3]))
    other = await connect()
    await other.execute("select pg_notify('bell', 'ring')")
    assert await asyncio.wait_for(heard, 5) == "ring"
    await other.close()
    await connection.close()


main()
