-- One statement a line. Each is run directly and through the gateway as a dba, in text and in binary, and every
-- byte of the answers is compared. A statement may fail: then the errors are compared.
select 1
select null
select
select 1, 2, 3
select -1::int2, 32767::int2, 2147483647::int4, 9223372036854775807::int8
select 0.1::float4, 0.1::float8, 'NaN'::float8, 'Infinity'::float8, '-Infinity'::float4
select 0::numeric, 1e100::numeric, -12345.678900::numeric, 'NaN'::numeric
select true, false, null::bool
select 'text', '', 'ünïcödé 字 🦀', E'\t\n\r\\'
select 'x'::char(10), 'y'::varchar(3), 'z'::name, 'c'::"char"
select '\x00ff10'::bytea, ''::bytea
select date '2026-01-02', date 'infinity', date '0001-01-01 BC'
select time '01:02:03.456789', timetz '01:02:03+05:30'
select timestamp '2026-01-02 03:04:05.678901', timestamptz '2026-01-02 03:04:05.678901+00'
select interval '1 year 2 months 3 days 04:05:06.789'
select '{}'::json, '{"a": [1, 2, {"b": null}]}'::jsonb, '"s"'::jsonb
select '2a5f1c36-8f2e-4a3e-9c5e-0a1b2c3d4e5f'::uuid
select '10.0.0.0/8'::cidr, '10.0.0.1'::inet, '::1'::inet, '08:00:2b:01:02:03'::macaddr
select point(1, 2), box '((0,0),(1,1))', circle '<(0,0),5>', path '[(0,0),(1,1)]', polygon '((0,0),(1,1),(1,0))'
select B'1010', B'1'::varbit
select '{1,2,3}'::int[], '{{1,2},{3,4}}'::int[][], '{a,null,"b c"}'::text[], '{}'::int[]
select int4range(1, 5), '(,)'::numrange, '{[1,2),[3,4)}'::int4multirange, 'empty'::daterange
select row(1, 'a', null), row(1, row(2, 3))
select 'a & b'::tsquery, to_tsvector('simple', 'the fat cat')
select '$1,234.56'::money
select '<a>b</a>'::xml
select 'pg_class'::regclass, 'lower'::regproc, 'int4'::regtype
select 12::oid, '(0,1)'::tid, '7'::xid, '0/16B3748'::pg_lsn
select '1 2'::int2vector, '1 2'::oidvector
select current_database(), current_schema(), current_schemas(true)
select id, name, email, ssn, card, phone, notes from customers where id <= 300 order by id
select * from customers order by id limit 50
select * from customers_archive order by id limit 50
select * from only customers where id = 42
select * from customer_contacts order by id limit 50
select * from orders order by id limit 500
select id, amount from orders where amount > 100 order by id limit 100
select c.name, o.item, o.amount from customers c join orders o on o.customer_id = c.id where c.id < 40 order by o.id
select c.id, count(o.id) from customers c left join orders o on o.customer_id = c.id where c.id < 60 group by c.id order by c.id
select status, count(*), sum(amount), avg(amount), min(placed_at), max(placed_at) from orders group by status order by status
select status, item, count(*) from orders group by rollup (status, item) order by 1, 2
select id, row_number() over (order by id), lag(amount) over (order by id), sum(amount) over (partition by status order by id) from orders where id < 100 order by id
select distinct item from orders order by item
select distinct on (status) status, id from orders order by status, id
select item from orders where id in (1, 2, 3) union select 'x' order by 1
select 1 union all select 1
select 1 intersect select 1
select 1 except select 2
with q as (select id from orders where id < 10) select sum(id) from q
with recursive t(n) as (select 1 union all select n + 1 from t where n < 100) select sum(n) from t
select * from generate_series(1, 1000) n
select n, repeat('x', n) from generate_series(1, 300) n
select * from (values (1, 'one'), (2, 'two'), (3, null)) as v(n, t)
select * from unnest(array[1, 2], array['a', 'b', 'c'])
select n, l from generate_series(1, 3) n, lateral (select n * 2) as x(l)
select json_agg(o order by id) from (select id, item from orders where id < 5) o
select row_to_json(o) from (select id, item, amount from orders where id < 5 order by id) o
select jsonb_build_object('n', n) from generate_series(1, 3) n
select array_agg(item order by id) from orders where id < 10
select string_agg(item, ', ' order by id) from orders where id < 10
select xmlforest(id, item) from orders where id < 4 order by id
select o from orders o where id < 4 order by id
select (o).item from (select o from orders o where id = 1) x
select case when id % 2 = 0 then 'even' else item end from orders where id < 10 order by id
select coalesce(notes, 'none'), nullif(name, 'x') from customers where id < 20 order by id
select exists (select from orders where id = 1), (select max(id) from customers)
select id from orders where item like 'k%' order by id limit 5
select id from orders where item ~ '^l.mp$' order by id limit 5
select item collate "C" from orders where id < 9 order by item collate "C", id
select 'a' || 'b' as "quoted name", 1 as "UPPER", 2 as select_
select 1 as a, 2 as a
select length(repeat('x', 1000000)), repeat('y', 100000)
select md5(string_agg(n::text, '')) from generate_series(1, 10000) n
select to_char(timestamptz '2026-01-02 03:04:05+00' at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS')
select extract(epoch from timestamptz '2026-01-02 03:04:05+00'), date_trunc('month', timestamp '2026-01-20')
select * from orders where false
select id from orders where id = 1 for update
select id from orders where id = 1 for share
select relname, relkind from pg_class where relname in ('customers', 'orders', 'customer_contacts') order by 1
select table_name, column_name, data_type from information_schema.columns where table_schema = 'public' order by 1, ordinal_position
select attname, atttypid::regtype from pg_attribute where attrelid = 'customers'::regclass and attnum > 0 order by attnum
select pg_get_viewdef('customer_contacts'::regclass)
select format_type(oid, -1) from pg_type where typname in ('int4', 'text') order by 1
select name, setting from pg_settings where name in ('block_size', 'server_encoding', 'integer_datetimes') order by 1
show server_version_num
show standard_conforming_strings
explain (costs off) select * from orders where id = 1
values (1), (2)
table customer_contacts limit 3
insert into orders (customer_id, item, amount, placed_at, status) values (1, 'rolled back', 1, '2026-01-01', 'new') returning item, amount
update orders set status = 'lost' where id = 5 returning id, status
delete from orders where id = 6 returning id, item
update orders set status = 'lost' where id < 0
create temporary table tt as select n from generate_series(1, 10) n
create temporary table te (n int primary key, t text default 'x')
do $$ begin perform 1; end $$
set local work_mem = '5MB'
select set_config('my.own', 'value', true), current_setting('my.own')
lock table orders in share mode
analyze orders
comment on table orders is 'all of them'
prepare pr as select $1::int + 1
declare cu cursor for select n from generate_series(1, 10) n
select 1/0
selec 1
select * from no_such_table
select no_such_column from orders
select 'x'::int
select lower(1, 2)
insert into customers (id, name, email, ssn, card, phone) values (1, 'a', 'b', 'c', 'd', 'e')
insert into orders (customer_id, item, amount, placed_at, status) values (-1, 'x', 1, now(), 'y')
select 9223372036854775807 + 1
select (array[1, 2, 3])[4], (array[1, 2, 3])[2:3]
select cast('2026-13-01' as date)
do $$ begin raise exception 'mine' using errcode = 'ZZ001', detail = 'a detail', hint = 'a hint'; end $$
rollback to savepoint nowhere
