#!/usr/bin/env bash
# pgbench 15: filling by COPY, its three protocols, and pipelines. Argument: where it is.
set -uo pipefail
source "$(dirname "$0")/case.sh"
tools=$1

bench() { "$tools/pgbench" -n -c 4 -j 2 -t 40 "$@" 2>&1 | grep -E 'actually processed|failed|error|aborted'; }
# The pipelines below add 1 in each of their 320 transactions.
sums() { "$tools/psql" -XAtc "select count(*), sum(delta) + 320 = (select sum(abalance) from pgbench_accounts) from pgbench_history"; }

the introspection the_schema_is_made "$tools/psql" -X -q -f "$CLIENT_MAKE"
the copy tables_are_filled_by_copy bash -c "'$tools/pgbench' -i -s 1 -I dtgvpf -q 2>&1 | sed -E 's/[0-9.]+ s/T s/g'"
for protocol in simple extended prepared; do
    name=$([ "$protocol" = prepared ] && echo prepared || echo pipeline)
    the "$name" "${protocol}_transactions" bench -M "$protocol" -b tpcb-like
    the "$name" "${protocol}_updates" bench -M "$protocol" -b simple-update
done
the pipeline a_connection_a_transaction bench -C -b select-only
cat >pipeline.sql <<'X'
\set a random(1, 100000)
\startpipeline
begin;
select abalance from pgbench_accounts where aid = :a;
update pgbench_accounts set abalance = abalance + 1 where aid = :a;
select count(*) from pgbench_branches;
end;
\endpipeline
X
the pipeline pipelines_extended bench -M extended -f pipeline.sql
the pipeline pipelines_prepared bench -M prepared -f pipeline.sql
cat >results.sql <<'X'
select 7 as seven, 8 as eight \gset
\if :seven < :eight
select abalance from pgbench_accounts where aid = :seven \; select 1 as one \aset
\endif
X
the prepared results_are_kept bench -M simple -f results.sql
the transactions the_balances_add_up sums
