"""Where statements come from: PostgreSQL's own regression files, sqlsmith, and both with a word changed."""

import os
import random
import re
import subprocess
from pathlib import Path

REGRESS = Path(os.environ.get("HOME", "")) / ".cache/wireward/postgresql-15/regress"
# A part of the suite that names much in few statements; first what the others read.
CHOSEN = """test_setup create_function_c create_misc create_operator create_procedure create_index create_view create_aggregate create_cast
    subselect union join with updatable_views rules returning insert_conflict merge portals prepare copyselect truncate matview lock triggers
    privileges aggregates window rangefuncs rowtypes plpgsql namespace sequence identity generated domain enum groupingsets tablesample
    rowsecurity temp transactions""".split()
WORD = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"|[A-Za-z_][A-Za-z_0-9]*|\d+(?:\.\d+)?|\s+|.", re.S)
DOLLAR = re.compile(r"\$(?:[A-Za-z_][A-Za-z_0-9]*)?\$")


def split(text):
    """Statements of a psql script, without psql's own commands and the data of COPY."""
    at, start, depth, atomic = 0, 0, 0, 0
    while at < len(text):
        skipped = past_quoted(text, at)
        if skipped:
            at = skipped
            continue
        char = text[at]
        if char == "\\":
            end = text.find("\n", at)
            end = len(text) if end < 0 else end
            text = text[:at] + " " * (end - at) + text[end:]
        elif char in "([":
            depth += 1
        elif char in ")]":
            depth = max(0, depth - 1)
        elif text[at : at + 12].lower() == "begin atomic":
            atomic = 1
        elif atomic and re.match(r"\bend\b", text[at - 1 : at + 4].strip(), re.I) and text[at - 1].isspace():
            atomic = 0
        elif char == ";" and depth == 0 and not atomic:
            statement = text[start:at].strip()
            start = at + 1
            if re.match(r"copy\b.*\bfrom\s+stdin", statement, re.I | re.S):
                end = text.find("\n\\.", at)
                at = start = len(text) if end < 0 else end + 3
            if statement:
                yield statement
        at += 1


def past_quoted(text, at):
    """Where a literal, a name or a comment that begins here ends; None if none does."""
    if text[at] == "'":
        escapes = at > 0 and text[at - 1] in "eE" and (at < 2 or not text[at - 2].isalnum())
        end = at + 1
        while end < len(text):
            if escapes and text[end] == "\\":
                end += 1
            elif text[end] == "'":
                return end + 1
            end += 1
        return end
    if text[at] == '"':
        return (text.find('"', at + 1) + 1) or len(text)
    if text.startswith("--", at):
        return (text.find("\n", at) + 1) or len(text)
    if text.startswith("/*", at):
        return (text.find("*/", at) + 2) if text.find("*/", at) >= 0 else len(text)
    if found := DOLLAR.match(text, at):
        end = text.find(found.group(), found.end())
        return len(text) if end < 0 else end + len(found.group())
    return None


def regression(all_files):
    names = CHOSEN
    if all_files:
        schedule = (REGRESS / "parallel_schedule").read_text(encoding="utf-8")
        names = [name for line in schedule.splitlines() if line.startswith("test:") for name in line[5:].split()]
    for name in names:
        path = REGRESS / "sql" / f"{name}.sql"
        if path.is_file():
            yield from split(path.read_text(encoding="utf-8", errors="replace"))


def sqlsmith(port, password, database, count, seed):
    """What sqlsmith would run; it runs nothing itself."""
    target = f"host=127.0.0.1 port={port} dbname={database} user=postgres password={password}"
    command = ["sqlsmith", f"--target={target}", "--dry-run", f"--max-queries={count}", f"--seed={seed}", "--exclude-catalog"]
    made = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    assert made.stdout, f"sqlsmith made nothing: {made.stderr}; .ci/run installs it"
    return list(split(made.stdout))


def mutations(originals, relations, count, seed):
    """Statements put into others, with a table exchanged, a number made something else, or a word lost: most still run."""
    chance = random.Random(seed)
    queries = [sql for sql in originals if re.match(r"\s*(select|table|values|with)\b", sql, re.I)]
    for _ in range(count):
        # Queries can be put into anything.
        sql = chance.choice(queries if chance.random() < 0.7 else originals)[:3000]
        pieces = WORD.findall(sql)
        tables = [at for at, piece in enumerate(pieces) if piece in relations]
        numbers = [at for at, piece in enumerate(pieces) if piece.isdigit()]
        if tables and chance.random() < 0.3:
            pieces[chance.choice(tables)] = chance.choice(sorted(relations))
        if numbers and chance.random() < 0.4:
            pieces[chance.choice(numbers)] = chance.choice(["null", "(select 1)", "(select count(*) from tenk1)", "1 + 1", "'2'"])
        if chance.random() < 0.1:
            pieces[chance.randrange(len(pieces))] = ""
        sql = "".join(pieces)
        yield chance.choice(AROUND if sql.lstrip()[:6].lower() in ("select", "values", "table ") else AROUND_ANY).replace("SQL", sql + "\n" * ("--" in sql))


# What a query can stand in, and what any statement can.
AROUND = [
    "SQL", "explain analyze SQL", "with x as (SQL) table x", "select count(*) from (SQL) x", "select exists (SQL)", "copy (SQL) to stdout", "create temp table made as SQL", "declare c cursor with hold for SQL",
    "prepare p as SQL; execute p; deallocate p", "prepare q as SQL", "execute q", "deallocate q", "select array(select 1 from (SQL) x)", "(SQL) limit 1", "insert into kept select count(*) from (SQL) x", "update kept set n = (select count(*) from (SQL) x)", "delete from kept where exists (SQL)",
    "create or replace view seen as SQL", "table seen", "select * from kept where n in (select 1 from (SQL) x)", "select 1 union all select count(*) from (SQL) x", "fetch all from c", "close c", "drop table made", "drop view seen",
    "merge into kept using (SQL) x on true when matched then do nothing", "with d as (delete from kept returning n) select count(*) from d, (SQL) x", "select * from kept, lateral (SQL) x", "explain SQL", "select case when exists (SQL) then 1 end",
]
AROUND_ANY = ["SQL", "SQL", "explain analyze SQL", "SQL; select 1"]
