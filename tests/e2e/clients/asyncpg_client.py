"""asyncpg: prepares everything, reads binary only, and asks the catalogue about types that it does not know."""

import asyncio
import io

import asyncpg

from case import MAKE, SCHEMA, VALUES, case, main, sqlstate


async def connect():
    return await asyncpg.connect(server_settings={"search_path": f"{SCHEMA}, public"})


async def refusal(awaited):
    try:
        await awaited
    except Exception as error:
        return sqlstate(error) or {"FAILED": repr(error)}
    return {"FAILED": "nothing was refused"}


def rows(records):
    return [list(record.items()) for record in records]


@case("introspection")
async def unknown_types_are_looked_up():
    connection = await connect()
    await connection.execute(MAKE)
    seen = [rows(await connection.fetch("select id, name, tags, home, legs, extra from pet order by id limit 2"))]
    seen.append(await connection.fetchval("select array_agg(mood) from owner"))
    seen.append(await connection.fetchval("select row(1, row('x', 2)::place)::text"))
    statement = await connection.prepare("select * from pet where name = $1 and weight > $2")
    seen.append([(a.name, a.type.name, a.type.kind) for a in statement.get_attributes()])
    seen.append([(p.name, p.kind) for p in statement.get_parameters()])
    await connection.close()
    return seen


@case("prepared")
async def statements_are_prepared_and_run_again():
    connection = await connect()
    statement = await connection.prepare("select name, weight from pet where id = $1")
    seen = [rows([await statement.fetchrow(n)]) for n in range(1, 20)]
    seen.append(statement.get_query())
    for n in range(1, 200):
        await connection.fetchval(f"select $1::int + {n}", n)
    await connection.close()
    return seen


@case("prepared")
async def a_statement_outlives_a_change_of_its_table():
    connection = await connect()
    await connection.execute("create temp table changes (a int); insert into changes values (1)")
    seen = [rows(await connection.fetch("select * from changes"))]
    await connection.execute("alter table changes add b text default 'new'")
    seen.append(rows(await connection.fetch("select * from changes")))
    await connection.close()
    return seen


@case("binary")
async def values_of_every_type_are_read():
    connection = await connect()
    values = rows([await connection.fetchrow(VALUES)])
    await connection.close()
    return values


@case("binary")
async def parameters_of_many_types_go_in():
    connection = await connect()
    import datetime, decimal, uuid

    values = (1, "ü", b"\x00\xff", decimal.Decimal("1.50"), datetime.date(2026, 1, 2), uuid.UUID(int=5), [1, None], True)
    seen = await connection.fetchrow(
        "select $1::int8, $2::text, $3::bytea, $4::numeric, $5::date, $6::uuid, $7::int[], $8::bool", *values)
    await connection.close()
    return list(seen)


@case("copy")
async def copies_go_in_and_out_in_each_format():
    connection = await connect()
    await connection.execute("create temp table copied (n int, t text, b bytea)")
    seen = []
    for form in ("text", "csv", "binary"):
        out = io.BytesIO()
        status = await connection.copy_from_query("select legs::int, name, photo from pet", output=out, format=form)
        await connection.execute("truncate copied")
        back = await connection.copy_to_table("copied", source=io.BytesIO(out.getvalue()), format=form)
        sums = await connection.fetchrow("select count(*), sum(n), md5(string_agg(b, '' order by t)) from copied")
        seen.append((form, status, back, list(sums)))
    seen.append(await connection.copy_records_to_table("copied", records=[(n, str(n), b"b") for n in range(3000)]))
    await connection.close()
    return seen


@case("cancel")
async def a_timeout_cancels_the_statement():
    connection = await connect()
    try:
        await connection.fetch("select pg_sleep(30)", timeout=0.3)
        outcome = "FAILED no timeout"
    except asyncio.TimeoutError:
        outcome = "timeout"
    goes_on = await connection.fetchval("select 'goes on'")
    await connection.execute("set statement_timeout = 200")
    server = await refusal(connection.fetch("select pg_sleep(30)"))
    await connection.close()
    return outcome, goes_on, server


@case("notify")
async def a_notification_arrives():
    connection, other = await connect(), await connect()
    heard = asyncio.get_running_loop().create_future()
    await connection.add_listener(f"{SCHEMA}_bell", lambda *a: heard.done() or heard.set_result(a[2:]))
    await other.execute(f"notify {SCHEMA}_bell, 'ring'")
    outcome = await asyncio.wait_for(heard, 10)
    await connection.close()
    await other.close()
    return outcome


@case("large objects")
async def large_objects_are_used_by_sql():
    connection = await connect()
    oid = await connection.fetchval("select lo_from_bytea(0, $1)", b"hello" * 1000)
    async with connection.transaction():
        fd = await connection.fetchval("select lo_open($1, 393216)", oid)
        seen = [await connection.fetchval("select loread($1, 7)", fd), await connection.fetchval("select lo_tell($1)", fd)]
    seen.append(await connection.fetchval("select lo_unlink($1)", oid))
    await connection.close()
    return seen


@case("cursors")
async def cursors_go_on_where_they_were():
    connection = await connect()
    async with connection.transaction():
        seen = [record["name"] async for record in connection.cursor("select name from pet order by id", prefetch=7)]
        cursor = await connection.cursor("select id from pet order by id")
        await cursor.forward(10)
        seen.append(rows(await cursor.fetch(3)))
    await connection.close()
    return seen


@case("pipeline")
async def many_executions_go_in_one_batch():
    connection = await connect()
    await connection.execute("create temp table many (n int, t text)")
    await connection.executemany("insert into many values ($1, $2)", [(n, str(n)) for n in range(3000)])
    failed = await refusal(connection.executemany("insert into owner (name) values ($1)", [("new",), ("owner 1",)]))
    seen = [list(await connection.fetchrow("select count(*), sum(n) from many")), failed]
    seen.append(await connection.fetchval("select count(*) from owner"))
    await connection.close()
    return seen


@case("transactions")
async def a_pool_resets_its_connections():
    async with asyncpg.create_pool(min_size=1, max_size=3) as pool:
        async with pool.acquire() as connection:
            await connection.execute("set work_mem = '77MB'; create temp table stays (n int); listen x")
        sums = await asyncio.gather(*(pool.fetchval("select $1::int * 2", n) for n in range(100)))
        async with pool.acquire() as connection:
            return sum(sums), await connection.fetchval("select count(*) from pg_listening_channels()")


@case("transactions")
async def nested_transactions_roll_back():
    connection = await connect()
    await connection.execute("create temp table nested (n int)")
    async with connection.transaction(isolation="repeatable_read"):
        await connection.execute("insert into nested values (1)")

        async def inner():
            async with connection.transaction():
                await connection.execute("insert into nested values (2)")
                await connection.execute("select 1 / 0")

        outcome = await refusal(inner())
    seen = await connection.fetchval("select array_agg(n) from nested")
    await connection.close()
    return outcome, seen


@case("errors")
async def errors_have_all_their_fields():
    connection = await connect()
    outcome = []
    for text in ("select * from nowhere", "select 1 / 0", "selec 1", "insert into owner (name) values ('owner 1')", "select twice('x')"):
        try:
            await connection.fetch(text)
            outcome.append("FAILED nothing was refused")
        except asyncpg.PostgresError as error:
            names = ("severity", "sqlstate", "message", "detail", "hint", "position", "table_name", "constraint_name")
            outcome.append([getattr(error, name, None) for name in names])
    heard = []
    connection.add_log_listener(lambda _, message: heard.append((message.sqlstate, message.message)))
    await connection.execute("do $$ begin raise warning 'two'; end $$")
    await asyncio.sleep(0)
    await connection.close()
    return outcome, heard


main()
