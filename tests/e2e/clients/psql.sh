#!/usr/bin/env bash
# psql 15: what it asks the catalogue, and its own commands for COPY, large objects and results. Argument: where psql is.
set -uo pipefail
source "$(dirname "$0")/case.sh"
psql=("$1/psql" -X -v VERBOSITY=verbose)

# Numbers of processes and large objects are never the same.
say() { "${psql[@]}" "$@" 2>&1 | sed -E 's/with PID [0-9]+/with PID N/; s/^(lo_import|lo_unlink) [0-9]+/\1 N/; s/large object [0-9]+/large object N/'; }
script() { say -f - ; }

the introspection the_schema_is_made say -q -f "$CLIENT_MAKE"
the introspection relations_are_described script <<X
\d
\d+ pet
\d+ owner
\d+ heavy
\d pet_weight
\dt+
\dv+
\dm+
\ds
\di
\dp
\sv heavy
X
the introspection other_objects_are_described script <<X
\df $schema.*
\sf twice
\dT+
\dD
\dC boo*
\do *~~*
\da ma*
\dF
\dL
\dx
\dy
\dRp
X
the introspection the_server_is_described script <<'X'
\du
\drds
\encoding
\dconfig work_mem
X

the prepared sql_prepares_and_executes script <<'X'
prepare p (bigint) as select name, weight from pet where id = $1;
execute p (3);
explain (costs off) execute p (3);
deallocate p;
execute p (4);
X
the prepared results_are_described_and_run script <<'X'
select id, name, tags, home from pet \gdesc
select format('select %L', name) from pet where id < 4 order by id \gexec
select name as pet, weight from pet where id = 1 \gset
\echo :pet :weight
select owner_id, mood, name from pet join owner using (name) \crosstabview
X
the binary formats_of_output script <<X
\pset format csv
$(cat "$CLIENT_VALUES");
declare c binary cursor for select 1;
begin; declare c binary cursor for select 1::int4, 'x'::text; fetch c; commit;
X
the copy copies_go_out_and_in script <<'X'
create temp table copied (like pet);
\copy pet to 'pet.copy'
\copy copied from 'pet.copy'
\copy pet to 'pet.csv' (format csv, header)
\copy copied from 'pet.csv' (format csv, header)
\copy (select name from pet where id = 7) to stdout
copy pet (name, photo) to stdout (format binary)
\g pet.binary
select count(*), sum(weight) from copied;
copy owner (id) from stdin;
not a number
\.
copy (select 1) to stdout \; select 2 \; copy (select 3) to stdout;
X
the cancel control_c_cancels_the_statement timeout --foreground -s INT 1 "${psql[@]}" -c 'select pg_sleep(30)'
the cancel the_session_goes_on script <<'X'
set statement_timeout = 300;
select pg_sleep(30);
reset statement_timeout;
select 'goes on';
X
the notify a_notification_is_shown script <<X
listen ${schema}_bell;
notify ${schema}_bell, 'ring';
select 1;
unlisten *;
X
head -c 300000 /dev/zero | tr '\0' 'x' >large.in
the 'large objects' psql_imports_exports_and_unlinks script <<'X'
\lo_import large.in 'a comment'
\set it :LASTOID
select length(lo_get(:it));
\lo_export :it large.out
\lo_unlink :it
\lo_unlink :it
X
the 'large objects' what_came_back_is_what_went cmp large.in large.out
the cursors rows_are_fetched_in_batches script <<'X'
\set FETCH_COUNT 17
select sum(length(name)) over (order by id), name from pet order by id limit 60;
X
the transactions errors_savepoints_and_rollbacks script <<'X'
\set ON_ERROR_ROLLBACK on
begin;
select 1 / 0;
insert into owner (name) values ('kept') returning name;
insert into owner (name) values ('owner 1');
rollback;
\set ON_ERROR_ROLLBACK off
begin; select 1 / 0; select 1; commit;
select 1 \; select 1 / 0 \; select 2;
X
the errors errors_have_all_their_fields script <<'X'
select * from nowhere;
insert into pet (owner_id, name) values (999, 'x');
do $$ begin raise exception 'own' using errcode = 'WW001', detail = 'd', hint = 'h'; end $$;
do $$ begin raise notice 'heard'; end $$;
\errverbose
X
the errors a_syntax_error_has_its_place say -c 'select 1 as a frm pet'
