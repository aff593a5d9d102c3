"""Databases of one making that differ in protected values alone: who is shown a difference was shown a value.

`shop` has the canaries. `twin` has others of the same lengths, with the same NULLs, the same equalities and the same order.
`other` differs in their order too."""

import random
import re
import string
from pathlib import Path

HERE = Path(__file__).parent
CORPUS = HERE.parent.parent / "corpus" / "hostile"
WORLDS = ("shop", "twin", "other", "added", "added_other")
# `added` and `added_other` hold what `shop` and `other` do, and homonyms of the system's functions, operators and casts.
ADDED = {"added": "shop", "added_other": "other"}
ROWS = 5


def words(chance, length):
    return sorted("".join(chance.choices(string.ascii_lowercase, k=length)) for _ in range(ROWS))


def numbers(chance, low, high):
    return sorted(chance.sample(range(low, high), ROWS))


def secrets(world):
    """Column by column, the protected values of a world in the order of their rows."""
    chance = random.Random("canaries of " + world)
    columns = {
        "ssn": [f"{n}-{chance.randrange(10, 99)}-{chance.randrange(1000, 9999)}" for n in numbers(chance, 101, 151)],
        "email": [f"{w}@vault.example" for w in words(chance, 12)],
        "card": [f"{n}0042" for n in numbers(chance, 400_000_000_000, 499_999_999_999)],
        "pin": numbers(chance, 10_000_000, 99_999_999),
        "score": numbers(chance, 11, 61),
        "born": [f"19{n}-0{chance.randrange(1, 10)}-{chance.randrange(10, 29)}" for n in numbers(chance, 40, 99)],
        "bio": [f"{w} {v}" for w, v in zip(words(chance, 14), words(chance, 11))],
        "tags": ["{%s,%s}" % pair for pair in zip(words(chance, 10), words(chance, 10))],
        "doc": ['{"code": "%s", "n": %d}' % pair for pair in zip(words(chance, 12), numbers(chance, 1000000, 9999999))],
        "num": [f"{n}.25" for n in numbers(chance, 10_000_000, 99_999_999)],
        "ratio": [f"0.{n}" for n in numbers(chance, 10_000_000, 99_999_999)],
        "token": [f"\\x{n:016x}" for n in numbers(chance, 1 << 60, 1 << 62)],
    }
    if world == "other":
        for column in columns.values():
            chance.shuffle(column)
    return columns


def hearsay(world):
    """What nobody but a dba may read: words of a table without a grant."""
    return words(random.Random("hearsay of " + world), 13)


def canaries():
    """Every protected value of `shop` that is long enough to be told from chance."""
    found = {value for name, column in secrets("shop").items() if name not in ("score", "born") for value in column}
    parts = {part for value in found for part in re.findall(r"[A-Za-z]{9,}|\d{8,}|\d+-\d+-\d+", str(value))}
    # The last four of a card are shown by its mask.
    return {part[:-4] if part.endswith("0042") else part for part in parts} | set(hearsay("shop"))


def worlds_of(row):
    """Where a row's objects are made."""
    return ADDED if row["kind"] == "homonyms" else set(WORLDS) - set(ADDED)


def compared(row):
    """What was asked for in one world and in another must be told alike; these differ in all that is protected."""
    return ("added", "added_other") if row["kind"] == "homonyms" else ("shop", "other")


def setup(world, major, rows=()):
    """The script that makes a world, with what rows of the corpus need."""
    base = ADDED.get(world, world)
    names = list(secrets(base))
    customers = zip(*secrets(base).values())
    values = ",\n".join(
        f"({n}, 'name {n}', 'city {n % 3}', " + ", ".join(f"'{v}'" for v in row) + ")"
        for n, row in enumerate(customers, 1)
    )
    text = (CORPUS / "shop.sql").read_text(encoding="utf-8")
    text = text.replace("CUSTOMERS", f"insert into customers (id, name, city, {', '.join(names)}) values\n{values};")
    told = ", ".join(f"({n}, '{word}')" for n, word in enumerate(hearsay(base), 1))
    text = text.replace("HEARSAY", f"insert into payroll values {told};").replace("WORLD", world)
    own = [row["setup"] for row in rows if "setup" in row and major in row.get("versions", (15, 18)) and world in worlds_of(row)]
    return text + "\n" + "\n".join(own) + "\nreset role;\nanalyze;\n"
