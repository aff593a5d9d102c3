-- What every client makes, reads and introspects: in a schema of its own, whose name stands for CLIENT.
drop schema if exists CLIENT cascade;
create schema CLIENT;
set search_path = CLIENT, public;
create type CLIENT.mood as enum ('low', 'fine', 'high');
create type CLIENT.place as (street text, number int);
create domain CLIENT.positive as int check (value > 0);
create table CLIENT.owner (id serial primary key, name varchar(40) not null unique, born date, mood CLIENT.mood default 'fine');
create table CLIENT.pet (
    id bigint generated always as identity primary key,
    owner_id int not null references CLIENT.owner (id) on delete cascade,
    name text not null,
    weight numeric(6, 2) check (weight > 0),
    tags text[] not null default '{}',
    extra jsonb,
    chip uuid,
    seen timestamptz default timestamptz '2026-01-02 03:04:05+00',
    photo bytea,
    home CLIENT.place,
    legs CLIENT.positive default 4,
    unique (owner_id, name)
);
comment on table CLIENT.pet is 'animals';
comment on column CLIENT.pet.chip is 'under the skin';
create index pet_weight on CLIENT.pet (weight desc) where weight is not null;
create view CLIENT.heavy as select p.name, o.name as owner from CLIENT.pet p join CLIENT.owner o on o.id = p.owner_id where weight > 5;
create materialized view CLIENT.light as select name from CLIENT.pet where weight <= 5;
create function CLIENT.twice(n int) returns int language sql immutable as 'select n * 2';
create procedure CLIENT.nothing() language sql as 'select 1';
insert into CLIENT.owner (name, born) select 'owner ' || n, date '1990-01-01' + n from generate_series(1, 20) n;
insert into CLIENT.pet (owner_id, name, weight, tags, extra, chip, photo, home)
select 1 + n % 20, 'pet ' || n, n / 7.0, array['t' || n, null, 'ü"'], jsonb_build_object('n', n, 'deep', jsonb_build_array(1, null, 'x')),
       md5(n::text)::uuid, decode(md5(n::text), 'hex'), row('street ' || n, n)::CLIENT.place from generate_series(1, 200) n;
refresh materialized view CLIENT.light;
