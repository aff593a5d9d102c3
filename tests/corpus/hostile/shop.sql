-- A small shop with canaries: WORLD says which of the worlds of tests/e2e/corpus/worlds.py it is.
create database WORLD;
grant create, temporary, connect on database WORLD to wireward;
\connect WORLD
set client_min_messages = warning;
create schema audit_of_test;
grant create on schema public to wireward, shop;
set role shop;

create table customers (
    id int primary key, name text not null, city text not null,
    ssn text, email text unique, card text, pin int, score int, born date, bio text, tags text[], doc jsonb,
    num numeric, ratio float8, token bytea,
    ssn_turned text generated always as (reverse(ssn)) stored,
    pin_half int generated always as (pin / 2) stored
);
CUSTOMERS
create view contacts as select id, name, email from customers;
create view grades as select id, score + 1 as grade from customers;
create table customers_archive () inherits (customers);

create table orders (
    id serial primary key, customer_id int not null, item text not null, amount numeric(10, 2) not null,
    placed_at timestamptz not null, status text not null
);
insert into orders (customer_id, item, amount, placed_at, status)
select 1 + n % 5, (array['kettle', 'lamp', 'teapot'])[1 + n % 3], n * 1.25, timestamptz '2026-01-01 00:00:00+00' + n * interval '1 hour',
       (array['new', 'paid', 'sent', 'returned'])[1 + n % 4]
from generate_series(1, 160) n;
create table victim (id int primary key, note text);
insert into victim select n, 'note ' || n from generate_series(1, 5) n;
-- Nobody but a dba has a grant on it.
create table payroll (id int primary key, word text);
HEARSAY
create table inbox (id int primary key, body text);

reset role;
-- Everything that a statement may leave behind, in one number. Its own reading must leave nothing.
create function audit_of_test.digest() returns text language plpgsql set search_path = pg_catalog as $$
declare
    relation record;
    part text;
    whole text := '';
begin
    for relation in select c.oid::regclass::text as name, c.relkind from pg_class c join pg_namespace n on n.oid = relnamespace
        where relkind in ('r', 'p', 'm', 'S') and nspname not in ('pg_catalog', 'information_schema', 'pg_toast') and relpersistence <> 't'
        order by 1
    loop
        if relation.relkind = 'S' then
            execute format('select last_value || ''.'' || is_called from %s', relation.name) into part;
        else
            execute format('select md5(string_agg(x::text, ''|'' order by x::text)) from %s x', relation.name) into part;
        end if;
        whole := whole || relation.name || coalesce(part, '-');
    end loop;
    select md5(string_agg(x, '|' order by x)) into part from (
        select relname::text || relkind::text || coalesce(relacl::text, '') || relowner as x from pg_class
            where relnamespace <> 'pg_toast'::regnamespace and relpersistence <> 't' and not relnamespace::regnamespace::text like 'pg\_t%'
        union all select proname::text || md5(prosrc) || coalesce(proacl::text, '') || coalesce(proconfig::text, '') from pg_proc where oid >= 16384
        union all select rolname::text || rolsuper || rolcanlogin || coalesce(rolpassword, '') from pg_authid
        union all select setdatabase || '.' || setrole || setconfig::text from pg_db_role_setting
        union all select roleid || '.' || member from pg_auth_members
        union all select 'large ' || oid from pg_largeobject_metadata
        union all select 'large ' || loid || pageno || md5(data) from pg_largeobject
        union all select 'trigger ' || tgname || tgenabled::text from pg_trigger
        union all select 'prepared ' || gid from pg_prepared_xacts
        union all select 'schema ' || nspname || coalesce(nspacl::text, '') from pg_namespace where nspname not like 'pg\_t%'
        union all select 'operator ' || oid from pg_operator where oid >= 16384
        union all select 'cast ' || oid from pg_cast where oid >= 16384
        union all select 'comment ' || objoid || description from pg_description where objoid >= 16384
        union all select 'slot ' || slot_name from pg_replication_slots
        union all select 'database ' || datname from pg_database
    ) s;
    return md5(whole || part);
end $$;
set role shop;
