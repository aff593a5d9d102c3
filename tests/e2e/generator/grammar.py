"""Hostile statements by kind: a source of protected values, a carrier that takes them along, an exit by which they would leave.

No statement compares a protected value with constants alone where that chooses, groups or orders rows: whoever asks so often
enough gets an answer, as POLICY.md says. All else that depends on a protected value must show nothing."""

from typing import NamedTuple

TEXTS = ["bio", "ssn", "email", "tags[1]", "doc->>'code'", "token::text", "born::text", "ssn_turned", "num::text", "ratio::text"]
NUMBERS = ["score", "pin % 40", "pin_half % 50", "ascii(bio)", "(doc->'n')::int % 30", "get_byte(token, 1) % 60"]


class Source(NamedTuple):
    """`items` go into FROM, `text` and `number` are expressions of protected values, `key` is an open one."""

    before: str
    items: str
    text: str
    number: str
    key: str


def sources(c):
    text, number = c.of(TEXTS), c.of(NUMBERS)
    alias = f"select id, {text} as t, {number} as n from customers"
    return c.of(
        [
            lambda: Source("", "customers c", qualified(text), qualified(number), "c.id"),
            lambda: Source("", f"({alias}) c", "c.t", "c.n", "c.id"),
            lambda: Source(f"with s as ({alias}) ", "s c", "c.t", "c.n", "c.id"),
            lambda: Source(f"with s as materialized ({alias}) ", "s c", "c.t", "c.n", "c.id"),
            lambda: Source(f"with s(a, b, d) as ({alias}) ", "s c", "c.b", "c.d", "c.a"),
            lambda: Source("", f"({alias}) c(k, v, w)", "c.v", "c.w", "c.k"),
            lambda: Source("", "customers c(k, l, m, v, w, x, y, n)", "c.v", "c.n", "c.k"),
            lambda: Source("", f"customers b cross join lateral (select {text.replace('id', 'b.id')} t, {number} n, b.id) c", "c.t", "c.n", "b.id"),
            lambda: Source("", f"orders o join ({alias}) c on c.id = o.customer_id and o.id < 9", "c.t", "c.n", "o.id"),
            lambda: Source("", f"({alias}) c join orders o using (id)", "t", "n", "id"),
            lambda: Source("", f"({alias}) c natural join (select id, item from orders where id < 9) o", "t", "n", "id"),
            lambda: Source("", f"(select id from orders where id < 9) o left join ({alias}) c using (id)", "c.t", "c.n", "o.id"),
            lambda: Source("", "contacts c", "c.email", "ascii(c.email)", "c.id"),
            lambda: Source("", "grades c", "c.grade::text", "c.grade", "c.id"),
            lambda: Source("", "(select c.id, c as r from customers c) c", "(c.r).bio", "(c.r).score", "c.id"),
            lambda: Source("", "customers c", "c::text", "length(replace(c::text, 'a', ''))", "c.id"),
            lambda: Source("", "customers c", "to_jsonb(c)->>'bio'", "(to_jsonb(c)->>'score')::int", "c.id"),
            lambda: Source("", "customers c", "(row_to_json(c))::text", "(row_to_json(c)->>'score')::int", "c.id"),
            lambda: Source("", "customers c", "c.record_out::text", "(hash_record(c) % 50)", "c.id"),
            lambda: Source("", "customers c, jsonb_populate_record(null::customers, to_jsonb(c)) p", "p.bio", "p.score", "c.id"),
            lambda: Source("", "customers c cross join lateral jsonb_each_text(to_jsonb(c)) e", "e.value", "length(replace(e.value, 'a', ''))", "c.id"),
            lambda: Source("", f"({alias} union all {alias}) c", "c.t", "c.n", "c.id"),
            lambda: Source(f"with recursive s as (({alias}) union select * from s) ", "s c", "c.t", "c.n", "c.id"),
            lambda: Source("", "(select unnest(array_agg(id)) id, unnest(array_agg(bio)) t, unnest(array_agg(score)) n from customers) c", "c.t", "c.n", "c.id"),
            lambda: Source("", "(values ((select bio from customers where id = 2), (select score from customers where id = 2), 2)) c(t, n, id)", "c.t", "c.n", "c.id"),
            lambda: Source("", f"(select id, t, n from ({alias} offset 0) x order by t) c", "c.t", "c.n", "c.id"),
            lambda: Source("", "(select id, lag(bio) over (order by id) t, first_value(score) over () n from customers) c", "c.t", "c.n", "c.id"),
            lambda: Source("", "(select city as id, max(bio) t, max(score) n from customers group by city) c", "c.t", "c.n", "c.id"),
            lambda: Source("", "only customers c", "c.bio", "c.score", "c.id"),
            lambda: Source("", "customers c tablesample bernoulli (100)", "c.email", "c.score", "c.id"),
        ]
    )()


def qualified(expression):
    names = ("bio", "ssn_turned", "ssn", "email", "tags", "doc", "token", "born", "num", "ratio", "score", "pin_half", "pin")
    for name in names:
        at = expression.find(name)
        if at >= 0:
            return expression[:at] + "c." + expression[at:]
    return expression


def text_of(c, s, depth=2):
    """A text that depends on a protected value."""
    if depth == 0:
        return s.text
    inner = text_of(c, s, depth - 1) if c.one_in(3) else s.text
    return c.of(
        [
            inner, f"reverse({inner})", f"upper({inner})", f"{inner} || ''", f"translate({inner}, 'abcdefghijklm-0123', 'nopqrstuvwxyz_4567')",
            f"encode(convert_to({inner}, 'UTF8'), 'hex')", f"encode(convert_to({inner}, 'UTF8'), 'base64')", f"md5({inner})", f"quote_literal({inner})", f"format('%s-%s', {inner}, 1)",
            f"concat({inner}, 'x')", f"concat_ws('.', {inner}, {s.key})", f"substr({inner}, 2)", f"left({inner}, 3)", f"right({inner}, 2)", f"split_part({inner}, '-', 2)", f"repeat('x', {s.number})",
            f"lpad('', {s.number}, 'y')", f"regexp_replace({inner}, '(.)', '\\1.', 'g')", f"to_json({inner})::text", f"array_to_string(regexp_split_to_array({inner}, ''), ',')", f"coalesce({inner}, 'x')",
            f"nullif({inner}, 'x')", f"greatest({inner}, 'a')", f"case when true then {inner} end", f"case when {s.number} % 2 = 0 then 'even' else 'odd' end", f"(array['a','b','c'])[1 + {s.number} % 3]",
            f"(select {inner})", f"(values ({inner}) limit 1)", f"(array[{inner}])[1]", f"(row({inner}, 1)::text)", f"xmlelement(name a, {inner})::text", f"to_tsvector('simple', {inner})::text",
            f"chr(60 + {s.number} % 60)", f"substr('0123456789abcdef', 1 + {s.number} % 16, 1)", f"to_char({s.number}, 'FM000')", f"({s.number})::text", f"case when {s.number} % 2 = 0 then '' end", f"json_build_object('k', {inner})::text",
            f"string_agg({inner}, ',') over ()", f"max({inner}) over (order by {s.key})", f"first_value({inner}) over (order by {s.key})", f"initcap({inner}) collate \"C\"", f"overlay({inner} placing 'x' from 1)",
        ]
    )


def truth_of(c, s):
    return c.of(
        [
            f"{s.number} % 2 = 0", f"{s.text} like 'a%'", f"{s.text} is distinct from 'x'", f"{s.text} ~ '[a-m]$'", f"({s.number}, 1) > (30, 0)", f"{s.number} in (20, 26, 32)", f"{s.number} = any (array[20, 57])",
            f"nullif({s.number} % 2, 0) is null", f"(case when {s.number} > 30 then 1 end) is not null", f"row(nullif({s.number} % 2, 0)) is null", f"({s.number} > 30) is true", f"({s.number} > 30) is not false",
            f"exists (select 1 where {s.number} % 2 = 0)", f"exists (select from generate_series(30, {s.number}))", f"{s.number} between 20 and 30", f"{s.text} >= 'm'", f"int4range(0, {s.number} % 40) @> 25", f"(select bool_or({s.number} % 3 = 1))",
            f"num_nulls(nullif({s.number} % 2, 0)) = 1", f"array[{s.number}] && array[20, 26]", f"jsonb_build_object('a', {s.number}) @> '{{\"a\": 20}}'", f"({s.number} + 0) = 20 or false", f"starts_with({s.text}, 'b')", f"get_bit(convert_to({s.text}, 'UTF8'), 3) = 1",
        ]
    )


def number_of(c, s):
    return c.of([s.number, f"({s.number} + 0)", f"ascii({s.text})", f"abs({s.number})", f"length(repeat('x', {s.number}))", f"(select {s.number})", f"greatest({s.number}, 1)", f"cardinality(array_fill(0, array[{s.number}]))", f"width_bucket({s.number}, 0, 60, 30)", f"bit_length({s.text}) + {s.number}"])


def select(c, s, what, more=""):
    return f"{s.before}select {what} from {s.items}{more}"


def carriers(c, s):
    n, t, b = number_of(c, s), text_of(c, s), truth_of(c, s)
    key = s.key
    one = f"(select {s.number} from {s.items} limit 1)"
    order = f" order by {key}"
    return c.of(
        [
            lambda: select(c, s, f"{key}, {t}"),
            lambda: select(c, s, t),
            lambda: select(c, s, f"{key}, {n}"),
            lambda: select(c, s, f"{key}, {b}"),
            lambda: select(c, s, f"count(*), {aggregate(c, s)}"),
            lambda: select(c, s, aggregate(c, s)),
            lambda: select(c, s, f"{key}, {aggregate(c, s)}", f" group by {key}"),
            lambda: select(c, s, f"{key}, {window(c, s)}", order),
            lambda: select(c, s, f"{key}, {setof(c, s)}", order),
            lambda: select(c, s, f"{key}, {setof(c, s)} is null", order),
            lambda: f"{s.before}select {key} from (select {key}, {setof(c, s)} as g from {s.items}) {key.split('.')[0] if '.' in key else 'z'}",
            lambda: f"{s.before}select count(*) from (select {setof(c, s)} from {s.items}) z",
            lambda: f"{s.before}select 1 as one from {s.items}, {from_function(c, s)}",
            lambda: f"{s.before}select {key}, count(*) from {s.items}, {from_function(c, s)} group by {key}{order}",
            lambda: f"{s.before}select {key}, (select count(*) from {from_function(c, s)}) from {s.items}{order}",
            lambda: f"{s.before}select {key}, (select max(x) from generate_series(1, {n}) x) from {s.items}{order}",
            lambda: f"{s.before}select x.id, {key} from orders x, {s.items} where {matches(c, s)} order by 1, 2",
            lambda: f"{s.before}select x.id from orders x join ({select(c, s, key + ' as k, ' + n + ' as v').replace(s.before, '', 1)}) y on x.id {c.of(['=', '<', '>=', '<>'])} y.v order by 1 limit 40",
            lambda: f"{s.before}select {c.of(['max', 'count', 'min', 'sum'])}(x.id) from orders x, {s.items} where x.id <= {n}",
            lambda: f"{s.before}select x.id from orders x where x.id in (select {n} from {s.items}) order by 1",
            lambda: f"{s.before}select x.id from orders x where exists (select from {s.items} where x.id = {n}) order by 1",
            lambda: f"{s.before}select x.id from orders x where x.id {c.of(['=', '<='])} any (array(select {n} from {s.items})) order by 1",
            lambda: f"{s.before}select x.id from orders x where x.id < {one} order by 1",
            lambda: f"{s.before}select x.id, x.id in (select {n} from {s.items}), exists (select from {s.items} where {n} = x.id) from orders x where x.id < 62 order by 1",
            lambda: f"{s.before}select x.id, (select {c.of(['1', key, 'count(*)'])} from {s.items} where {n} = x.id limit 1) from orders x where x.id < 62 order by 1",
            lambda: f"{s.before}select x.id, case when x.id = {one} then 'hit' end from orders x where x.id < 62 order by 1",
            lambda: f"{s.before}select id from orders order by id limit {one}",
            lambda: f"{s.before}select id from orders order by id offset {one} limit 2",
            lambda: f"{s.before}select id from orders order by id fetch first {one} rows {c.of(['only', 'with ties'])}",
            lambda: f"{s.before}select count(*) from (select from orders limit {one}) z",
            lambda: f"{s.before}select {key}, (select x.id from orders x order by x.id offset {n} limit 1) from {s.items}{order}",
            lambda: f"{s.before}select id from orders tablesample bernoulli (50) repeatable ({one})",
            lambda: f"{s.before}select id from orders tablesample {c.of(['system', 'bernoulli'])} ({one})",
            lambda: f"{s.before}select id from orders where id < 62 {c.of(['intersect', 'except', 'union', 'intersect all', 'except all'])} select {n} from {s.items} order by 1",
            lambda: f"{s.before}select item from orders union select {t} from {s.items}",
            lambda: recursion(c, s),
            lambda: f"{s.before}select x.id from orders x order by abs(x.id - {one}), x.id limit 1",
            lambda: f"{s.before}select {key}, {state(c, s)} from {s.items}{order}",
            lambda: f"{s.before}select {state(c, s)} is null from {s.items}",
            lambda: f"{s.before}select k, random() from (select {key} as k, setseed({s.number} / 200.0) from {s.items}{order} offset 0) z",
            lambda: f"{s.before}select {key}, ({t})::{c.of(['int', 'date', 'inet', 'uuid', 'json', 'point', 'regclass', 'xml', 'interval', 'int[]', 'money', 'tsquery', 'bit(3)', 'jsonpath', 'int4range', 'oid', 'xid', 'regtype', 'macaddr', 'numeric'])} from {s.items}",
            lambda: f"{s.before}select {loud(c, s, t)} from {s.items}",
            lambda: f"{s.before}select {key} from {s.items} group by {key} having {c.of(['bool_or', 'every'])}({n} = (select max(id) from orders where id <= {one}))",
        ]
    )()


def aggregate(c, s):
    key = s.key
    return c.of(
        [
            f"max({s.text})", f"string_agg({s.text}, ',' order by {key})", f"array_agg({s.text})", f"json_agg({s.number})", f"jsonb_object_agg({key}, {s.text})", f"xmlagg(xmlelement(name a, {s.text}))", f"mode() within group (order by {s.text})",
            f"percentile_disc(0.5) within group (order by {s.number})", f"percentile_cont(0.5) within group (order by {s.number})", f"percentile_disc(array[0.2, 0.8]) within group (order by {s.text})", f"rank(30) within group (order by {s.number})",
            f"cume_dist(30) within group (order by {s.number})", f"array_agg({key} order by {s.number} % 7)", f"string_agg({key}::text, ',' order by {s.text} like '%a')", f"count(*) filter (where {s.number} % 2 = 0)", f"count(nullif({s.number} % 2, 0))",
            f"count(distinct {s.number} % 7)", f"sum({s.number})", f"avg({s.number})::int", f"bool_or({s.number} % 2 = 0)", f"bit_xor({s.number})", f"stddev({s.number})", f"corr({s.number}, 1)", f"regr_count(nullif({s.number} % 2, 0), 1)",
            f"max({key}) filter (where {truth_of(c, s)})", f"min({s.number}) filter (where true)", f"range_agg(int4range({s.number}, {s.number} + 1))", f"every({truth_of(c, s)})", f"count({s.text}) filter (where {truth_of(c, s)})",
            f"jsonb_agg({key} order by {s.number} % 5)", f"(array_agg({key} order by {s.number} % 5))[1]", f"max(length({s.text} || repeat('x', {s.number})))",
        ]
    )


def window(c, s):
    key = s.key
    return c.of(
        [
            f"max({s.text}) over ()", f"lag({s.text}) over (order by {key})", f"lag({key}, {s.number} % 3) over (order by {key})", f"ntile(1 + {s.number} % 4) over (order by {key})", f"nth_value({key}, 1 + {s.number} % 3) over (order by {key})",
            f"row_number() over (order by {s.number} % 7, {key})", f"rank() over (order by {s.number} % 7)", f"dense_rank() over (partition by {s.number} % 2 order by {key})", f"count(*) over (partition by {s.number} % 2)", f"count(*) over (order by {s.number} range 6 preceding)",
            f"count(*) over (order by {s.number} groups 1 preceding)", f"first_value({key}) over (order by {s.number} % 7)", f"count(*) filter (where {s.number} % 2 = 0) over ()", f"sum({s.number}) over (order by {key})", f"cume_dist() over (order by {s.number} % 5)",
            f"last_value({key}) over (order by {key} rows between current row and (select {s.number} % 3 from {s.items} limit 1) following)",
        ]
    )


def setof(c, s):
    n = s.number
    return c.of(
        [
            f"generate_series(1, {n})", f"unnest(array_fill(0, array[{n}]))", f"regexp_split_to_table({s.text}, '[aeiou1-4]')", f"string_to_table(repeat('x,', {n}), ',')", f"json_array_elements(to_json(array_fill(0, array[{n}])))",
            f"jsonb_path_query(to_jsonb(array_fill(0, array[{n}])), '$[*]')", f"regexp_matches({s.text}, '[a-f1-4]', 'g')", f"generate_subscripts(array_fill(0, array[{n}]), 1)", f"unnest(string_to_array({s.text}, 'a'))", f"jsonb_object_keys(jsonb_build_object({s.text}, 1))",
        ]
    )


def from_function(c, s):
    plain = setof(c, s)
    return c.of([f"{plain} f", f"lateral (select {plain}) f", f"lateral (select from generate_series(1, {s.number})) f", f"rows from ({plain}, generate_series(1, 2)) f", f"{plain} with ordinality f", f"lateral (values (1), (2), (3) limit {s.number} % 3) f", f"lateral (select from orders limit {s.number}) f", f"ts_parse('default', {s.text}) f"])


def matches(c, s):
    return c.of(
        [
            f"x.id = {s.number}", f"x.id::text = {s.number}::text", f"x.id between {s.number} and {s.number} + 1", f"x.id <= {s.number} and x.id > {s.number} - 2", f"chr(x.id) = left({s.text}, 1)", f"x.id = ascii({s.text})", f"position(chr(x.id) in {s.text}) = 1", f"{s.text} like chr(x.id) || '%'",
            f"(x.id, 1) = ({s.number}, 1)", f"x.id in ({s.number}, {s.number} + 1)", f"x.id is not distinct from {s.number}", f"not (x.id <> {s.number})", f"x.id - {s.number} = 0", f"array[x.id] <@ array[{s.number}]", f"case when x.id = {s.number} then true else false end", f"nullif(x.id, {s.number}) is null",
            f"coalesce(nullif(x.id, {s.number}), 0) = 0", f"exists (select where x.id = {s.number})", f"x.id = (select {s.number})", f"int4range({s.number}, {s.number} + 1) @> x.id", f"x.id = any (array[{s.number}])", f"starts_with({s.text}, chr(x.id))", f"substr({s.text}, 2, 1) = chr(x.id)",
        ]
    )


def recursion(c, s):
    one = f"(select {s.number} from {s.items} limit 1)"
    before = s.before.replace("with recursive ", "with ").replace("with ", ", ", 1) if s.before else ""
    head = "with recursive " + (before[2:].rstrip() + ", " if before else "")
    return head + c.of(
        [
            f"r(i) as (select 1 union all select i + 1 from r where i < {one}) select count(*) from r",
            f"r(i) as (select 1 union all select i + 1 from r where i < {one}) select max(i) from r",
            f"r(i) as (select 1 union select i + 1 from r where i < {one}) select i from r order by i",
            f"r(i, k) as (select 1, {s.key} from {s.items} union all select i + 1, k from r where i < {one}) select k, count(*) from r group by k order by k",
        ]
    )


def state(c, s):
    return c.of(
        [
            f"set_config('app.kept', {s.text}, false)", f"setseed(({s.number} % 100) / 100.0)", f"pg_try_advisory_lock({s.number})", f"nextval('orders_id_seq') + {s.number}", f"pg_notify('heard', {s.text})", f"setval('orders_id_seq', {s.number})", f"pg_sleep({s.number} / 100000.0)",
            f"lo_from_bytea(0, convert_to({s.text}, 'UTF8'))", f"set_config('work_mem', ({s.number} + 64)::text, false)", f"pg_advisory_xact_lock({s.number})", f"set_config('application_name', {s.text}, false)", f"current_setting('app.' || {s.text}, true)", f"set_config('app.x', 'x', {s.number} % 2 = 0)", f"pg_logical_emit_message(false, 'x', {s.text})",
        ]
    )


def loud(c, s, text):
    return c.of(
        [
            f"to_date({text}, 'YYYY')", f"decode({text}, 'hex')", f"now() at time zone {text}", f"has_table_privilege({text}, 'orders', 'select')", f"currval({text})", f"current_setting({text})", f"format('%' || {text}, 1)", f"date_trunc({text}, now())", f"to_tsvector({text}::regconfig, 'x')", f"json_object(array[{text}])",
            f"pg_size_bytes({text})", f"convert_from(convert_to({text}, 'UTF8'), {text})", f"regexp_replace('x', {text} || '(', '')", f"xmlparse(document {text})", f"to_number({text}, 'RN')", f"make_date({s.number}, 20, 1)", f"lo_get({s.number})", f"array_fill(1, array[{s.number}, -1])", f"query_to_xml({text}, true, true, '')", f"1 / ({s.number} - {s.number})",
        ]
    )


def exits(c, sql):
    """Statements that let the answer of a query out, in one session. Those of an agent are rolled back."""
    compact = sql.strip()
    return c.of(
        [
            lambda: ("analyst", [compact]),
            lambda: ("analyst", [f"copy ({compact}) to stdout"]),
            lambda: ("analyst", [f"copy ({compact}) to stdout ({c.of(OPTIONS)})"]),
            lambda: ("analyst", [f"select count(*) from ({compact}) z_"]),
            lambda: ("analyst", [f"select 1 from ({compact}) z_"]),
            lambda: ("analyst", [f"select z_ from ({compact}) z_"]),
            lambda: ("analyst", [f"select z_ is null, z_.* is null from ({compact}) z_"]),
            lambda: ("analyst", [f"select (select count(*) from ({compact}) z_), exists ({compact}), array(select 1 from ({compact}) z_)"]),
            lambda: ("analyst", [f"with z_ as ({compact}) table z_"]),
            lambda: ("analyst", ["begin", f"declare d cursor for {compact}", "fetch 3 d", "fetch all from d", "commit"]),
            lambda: ("analyst", ["begin", f"declare d cursor with hold for {compact}", "commit", "fetch all d", "close d"]),
            lambda: ("analyst", ["begin", f"declare d scroll cursor for {compact}", "move all d", "fetch last d", "fetch prior d", "rollback"]),
            lambda: ("analyst", [f"explain (analyze, costs off, timing off, summary off{c.of(['', ', verbose', ', format json', ', format xml'])}) {compact}"]),
            lambda: ("analyst", [f"explain {compact}"]),
            lambda: ("agent", ["begin", f"insert into inbox select row_number() over () + 1000, z_::text from ({compact}) z_", "table inbox", "rollback"]),
            lambda: ("agent", ["begin", f"insert into inbox values (1, 'x') returning (select z_::text from ({compact}) z_ limit 1)", "rollback"]),
            lambda: ("agent", ["begin", f"insert into inbox select row_number() over () + 1000, 'x' from ({compact}) z_", "select count(*) from inbox", "rollback"]),
            lambda: ("agent", ["begin", f"update orders set status = (select z_::text from ({compact}) z_ limit 1) where id = 1", "select status from orders where id = 1", "rollback"]),
            lambda: ("agent", ["begin", f"update orders set status = 'hit' where id < 9 and exists ({compact})", "select id, status from orders where id < 9 order by id", "rollback"]),
            lambda: ("locker", ["listen heard", compact, "select 1", "unlisten heard"]),
            lambda: ("analyst", [compact, "show app.kept", "select current_setting('app.kept', true)", "show work_mem", "show application_name"]),
            lambda: ("analyst", ["begin", *NO_INDEX, compact, COUNTED, "rollback"]),
            lambda: ("locker", ["begin", f"select 1 from orders where id < 70 and exists ({compact}) for update", LOCKED, "rollback"]),
            lambda: ("locker", ["begin", f"select 1 from orders where id < 70 and id in (select count(*) from ({compact}) z_) for share", LOCKED, "rollback"]),
            lambda: ("locker", [f"select pg_try_advisory_lock(count(*)) from ({compact}) z_", "select objid from pg_locks where locktype = 'advisory'", "select pg_advisory_unlock_all()"]),
            lambda: ("writer", ["begin", f"update customers set city = coalesce((select z_::text from ({compact}) z_ limit 1), city) where id = 1", "select city from customers where id = 1", "rollback"]),
            lambda: ("writer", ["begin", f"insert into victim select 100, z_::text from ({compact}) z_ limit 1", "select note from victim where id = 100", "rollback"]),
            lambda: ("analyst", [f"select set_config('app.kept', z_::text, false) is null from ({compact}) z_", "show app.kept"]),
            lambda: ("analyst", [f"create temp table t_ as {compact}", "table t_"]),
            lambda: ("analyst", [f"select * from ({compact}) a_ full join (select 1 as one) b_ on true"]),
            lambda: ("analyst", [f"({compact}) limit 3"]),
        ]
    )()


NO_INDEX = ["set local enable_indexscan = off", "set local enable_indexonlyscan = off", "set local enable_bitmapscan = off"]
COUNTED = "select relname, seq_tup_read, idx_tup_fetch from pg_stat_xact_user_tables where relname = 'orders'"
LOCKED = "select id from orders where id < 70 and xmax::text <> '0' order by id"
OPTIONS = ["format csv", "delimiter '|'", "null '\\'", "null 'x', delimiter '-'", "format csv, quote '-'", "format csv, force_quote *", "format csv, header, escape 'a'", "format binary", "format csv, null '\"'", "delimiter ' ', null '\\'", "encoding 'SQL_ASCII'", "header"]

FORMS = ["simple", "extended", "extended_binary", "pipelined", "two_writes", "split", "by_prepare", "in_one_text"]


def hostile(c):
    """A role, statements of one session, and the form in which they are sent."""
    source = sources(c)
    role, statements = exits(c, carriers(c, source))
    return role, statements, c.of(FORMS)
