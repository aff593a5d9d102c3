"""SQLAlchemy: reflection and the ORM, over three drivers."""

import asyncio
import os

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import create_async_engine

from case import MAKE, SCHEMA, case, main, refusal, sqlstate

DRIVERS = ("psycopg2", "psycopg")
SEARCH = f"-c search_path={SCHEMA},public"


def engine(driver, **options):
    return sa.create_engine(f"postgresql+{driver}://", connect_args={"options": SEARCH}, **options)


class Base(orm.DeclarativeBase):
    metadata = sa.MetaData(schema=SCHEMA)


class Author(Base):
    __tablename__ = "author"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    name: orm.Mapped[str] = orm.mapped_column(sa.String(50), unique=True)
    facts: orm.Mapped[dict] = orm.mapped_column(postgresql.JSONB, default=dict)
    tags: orm.Mapped[list] = orm.mapped_column(postgresql.ARRAY(sa.Text), default=list)
    books: orm.Mapped[list["Book"]] = orm.relationship(back_populates="author", cascade="all, delete-orphan")


class Book(Base):
    __tablename__ = "book"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    title: orm.Mapped[str]
    price: orm.Mapped[float] = orm.mapped_column(sa.Numeric(8, 2))
    author_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey(Author.id))
    author: orm.Mapped[Author] = orm.relationship(back_populates="books")


@case("introspection")
def everything_is_reflected():
    with engine("psycopg2").begin() as connection:
        connection.connection.cursor().execute(MAKE)
    return [reflected(engine(driver)) for driver in DRIVERS]


def reflected(on):
    look = sa.inspect(on)
    seen = {"schemas": [s for s in look.get_schema_names() if s == SCHEMA], "enums": look.get_enums(SCHEMA),
            "views": sorted(look.get_view_names(SCHEMA)), "materialized": look.get_materialized_view_names(SCHEMA),
            "sequences": sorted(look.get_sequence_names(SCHEMA)), "domains": look.get_domains(SCHEMA),
            "definition": look.get_view_definition("heavy", SCHEMA)}
    for table in ("owner", "pet", "heavy"):
        columns = [{**column, "type": repr(column["type"])} for column in look.get_columns(table, SCHEMA)]
        seen[table] = [columns, look.get_pk_constraint(table, SCHEMA), look.get_foreign_keys(table, SCHEMA),
                       look.get_indexes(table, SCHEMA), look.get_unique_constraints(table, SCHEMA),
                       look.get_check_constraints(table, SCHEMA), look.get_table_comment(table, SCHEMA)]
    metadata = sa.MetaData(schema=SCHEMA)
    metadata.reflect(on, views=True)
    seen["tables"] = {name: [repr(column.type) for column in table.columns] for name, table in metadata.tables.items()}
    return seen


@case("prepared")
def the_orm_writes_and_reads():
    seen = []
    for driver in DRIVERS:
        on = engine(driver)
        Base.metadata.drop_all(on)
        Base.metadata.create_all(on)
        with orm.Session(on) as session:
            session.add_all([Author(name=f"a{n}", facts={"n": n}, tags=["x", str(n)], books=[
                Book(title=f"b{n}.{m}", price=m + n / 4) for m in range(5)]) for n in range(40)])
            session.commit()
            query = sa.select(Author.name, sa.func.count(), sa.func.sum(Book.price)).join(Book).group_by(Author.name).order_by(Author.name)
            seen.append([list(row) for row in session.execute(query).all()[:5]])
            author = session.scalars(sa.select(Author).where(Author.facts["n"].as_integer() == 7).options(orm.selectinload(Author.books))).one()
            seen.append([author.name, author.tags, sorted(book.title for book in author.books)])
            author.books.pop()
            author.facts = {"n": 77}
            session.commit()
            seen.append(session.execute(sa.update(Book).where(Book.price > 10).values(price=10).returning(Book.title)).scalars().all())
            insert = postgresql.insert(Author).values(name="a1", facts={}, tags=[])
            session.execute(insert.on_conflict_do_update(index_elements=["name"], set_={"tags": ["again"]}))
            session.commit()
            seen.append(session.scalar(sa.select(Author.tags).where(Author.name == "a1")))
            session.add(Author(name="a2"))
            seen.append(refusal(session.flush))
    return seen


@case("cursors")
def rows_are_streamed():
    seen = []
    for driver in DRIVERS:
        with engine(driver).connect() as connection:
            result = connection.execution_options(stream_results=True, yield_per=500).execute(sa.text("select n from generate_series(1, 5000) n"))
            seen.append(sum(len(part) for part in result.partitions()))
    return seen


@case("transactions")
def isolation_savepoints_and_two_phases():
    seen = []
    for driver in DRIVERS:
        with engine(driver, isolation_level="REPEATABLE READ").connect() as connection:
            seen.append(connection.get_isolation_level())
            connection.exec_driver_sql("create temp table s (n int)")
            with connection.begin_nested():
                connection.exec_driver_sql("insert into s values (1)")
            nested = connection.begin_nested()
            seen.append(refusal(lambda: connection.exec_driver_sql("select 1 / 0")))
            nested.rollback()
            seen.append(connection.exec_driver_sql("select array_agg(n) from s").scalar())
    return seen


@case("copy")
def the_drivers_copy_is_at_hand():
    import io

    with engine("psycopg2").connect() as connection:
        out = io.StringIO()
        connection.connection.cursor().copy_expert("copy owner (id, name) to stdout", out)
        return out.getvalue()


@case("binary")
def asyncpg_serves_the_async_engine():
    async def work():
        on = create_async_engine("postgresql+asyncpg://", connect_args={"server_settings": {"search_path": f"{SCHEMA},public"}})
        async with on.begin() as connection:
            seen = [[list(row) for row in await connection.execute(sa.text("select id, name, weight, photo from pet order by id limit 5"))]]
            seen.append(await connection.run_sync(lambda c: [str(x["type"]) for x in sa.inspect(c).get_columns("pet", SCHEMA)]))
        await on.dispose()
        return seen

    return asyncio.run(work())


@case("errors")
def a_lost_row_is_told():
    with engine("psycopg").connect() as connection:
        try:
            connection.exec_driver_sql("select * from nowhere")
        except sa.exc.ProgrammingError as error:
            return sqlstate(error), type(error.orig).__name__, error.orig.diag.statement_position
    return os.environ["PGDATABASE"]


main()
