#!/usr/bin/env bash
# PostgreSQL's own test of libpq's pipeline mode: each of its cases, and every message of it as libpq's trace shows them.
# Argument: where psql is.
set -uo pipefail
source "$(dirname "$0")/case.sh"
program=$HOME/.cache/wireward/postgresql-15/bin/libpq_pipeline

# What these send and print depends on when answers arrive: only their verdict is compared.
by_chance=" pipelined_insert pipeline_idle uniqviol "

run() {
    local status=0
    "$program" -t trace -r 700 "$1" >printed 2>&1 || status=$?
    [[ $by_chance == *" $1 "* ]] || cat printed trace
    return $status
}

"$1/psql" -X -q -c "create schema $schema"

for name in $("$program" tests); do
    the pipeline "$name" run "$name"
done
