-- The sample shop: invented people, the same ones every time.
-- Tables belong to a role that cannot log in; the gateway's role is a member of it and owns nothing itself.
create role shop nologin;
create role wireward login in role shop password :'wireward_password';
create database shop;
grant create, temporary, connect on database shop to wireward;
\connect shop
grant create on schema public to wireward;
grant create on schema public to shop;
set role shop;

create table customers (
    id int primary key,
    name text not null,
    email text not null unique,
    ssn text not null,
    card text not null,
    phone text not null,
    notes text
);
create table orders (
    id serial primary key,
    customer_id int not null references customers,
    item text not null,
    amount numeric(10, 2) not null,
    placed_at timestamptz not null,
    status text not null
);
create index on orders (customer_id);

-- The digit that makes a number pass the Luhn check.
create function pg_temp.luhn(digits text) returns text language sql immutable as $$
    select digits || (1000 - sum(case when doubled > 9 then doubled - 9 else doubled end)) % 10
    from (
        select case when (length(digits) - position) % 2 = 0 then 2 else 1 end
               * substr(digits, position, 1)::int as doubled
        from generate_series(1, length(digits)) as position
    ) as digit
$$;

insert into customers
select id,
       first || ' ' || last,
       lower(first) || '.' || lower(last) || id || '@' || domain,
       (100 + id % 500)::text || '-' || (10 + id % 89)::text || '-' || (1000 + id * 7 % 8999)::text,
       pg_temp.luhn('4' || lpad((id::bigint * 81913374317 % 99999999999999)::text, 14, '0')),
       '+1212555' || lpad((id % 10000)::text, 4, '0'),
       case id % 10
           when 1 then 'Prefers mail to ' || lower(first) || id || '.private@example.net'
           when 2 then 'Paid once with ' || pg_temp.luhn('51' || lpad((id::bigint * 7696213373 % 9999999999999)::text, 13, '0'))
           when 3 then 'Asked for a call back in the morning'
           when 4 then 'Gift wrapping, always'
       end
from (
    select id,
           (array['Ada','Ben','Carla','David','Elif','Farid','Grace','Hugo','Ines','Jonas'])[1 + id % 10] as first,
           (array['Abel','Brandt','Costa','Duran','Ek','Fischer','Garcia','Holm','Ivanov','Jansen','Keller'])[1 + id % 11] as last,
           (array['example.com','example.org','mail.example.net'])[1 + id % 3] as domain
    from generate_series(1, 10000) as id
) as person;

insert into orders (customer_id, item, amount, placed_at, status)
select 1 + (n::bigint * 7919 % 10000)::int,
       (array['kettle','lamp','teapot','notebook','bicycle bell','umbrella','chess set'])[1 + n % 7],
       (5 + n * 37 % 40000 / 100.0)::numeric(10, 2),
       timestamptz '2026-01-01 00:00:00+00' + n * interval '14 minutes',
       (array['new','paid','sent','returned'])[1 + n % 4]
from generate_series(1, 30000) as n;

create view customer_contacts as select id, name, email, phone from customers;
-- A child table: its rows show up in a query of its parent, and it can be read under its own name.
create table customers_archive () inherits (customers);
insert into customers_archive
select 20000 + id, name, 'old.' || email, ssn, card, phone, 'moved away' from only customers where id <= 200;

reset role;
analyze;
