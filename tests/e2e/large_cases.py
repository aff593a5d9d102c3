"""Large values in binary format through psycopg 3, as an analyst: masked while they pass, as text is."""

import psycopg
from support import case, login, main

CARD = "4111111111111111"
ADDRESS = "ann@example.com"
BODY = "".join("x" * (n % 397) + f" {CARD} {ADDRESS} " for n in range(20_000))


def masked(text, number="*"):
    return text.replace(CARD, number * len(CARD)).replace(ADDRESS, "*" * len(ADDRESS))


def fetched(expression, binary):
    """What an analyst gets of a value that the server makes of the same pieces."""
    pieces = f"select string_agg(repeat('x', n % 397) || ' {CARD} {ADDRESS} ', '' order by n) from generate_series(0, 19999) n"
    with psycopg.connect(dbname="shop", **login("analyst")) as connection:
        row = connection.execute(f"select 7, {expression}, 'end' from ({pieces}) t(v)", binary=binary).fetchone()
    assert (row[0], row[2]) == (7, "end"), row
    return row[1]


@case
def large_text_and_varchar_are_masked_in_binary_format_as_in_text():
    for expression in ["v", "v::varchar"]:
        for binary in (True, False):
            assert fetched(expression, binary) == masked(BODY), (expression, binary)


@case
def a_large_json_document_stays_one():
    for kind in ["json", "jsonb"]:
        for binary in (True, False):
            # A bare number in JSON becomes zeros, whether it stands in a string or not.
            assert fetched(f"to_{kind}(v)", binary) == masked(BODY, "0"), (kind, binary)


@case
def large_values_of_several_columns_and_null_keep_their_places():
    query = f"select v, null::text, 1.5::float8, v || '!', '' from (select repeat('y', 99991) || ' {CARD} ' ) t(v)"
    with psycopg.connect(dbname="shop", **login("analyst")) as connection:
        for binary in (True, False):
            row = connection.execute(query, binary=binary).fetchone()
            value = masked("y" * 99_991 + f" {CARD} ")
            assert row == (value, None, 1.5, value + "!", ""), (binary, [len(str(v)) for v in row])


main()
