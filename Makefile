# TL;DR   make demo         a sample database and a gateway before it, in one command
#         make test         build, format check, all tests
#         make clients      every client on PostgreSQL 15 and 18, by both drivers, with and without TLS
#         make regress      PostgreSQL's regression suite through the gateway
#         make hostile      SECONDS=3600 of hostile statements by kind on PostgreSQL 15 and 18, from SEED (the clock's, if none)
#         make truth        STATEMENTS=50000: what pgaudit says ran lies within what was predicted
#         make conformance  the golden exchanges, cut at every single place (two minutes, and a release build)
#         make simulate     SEEDS=100000 worlds of the simulation, from seed FROM=0 on
#         make bench        criterion benches
#         make bench-peers  beside pgbouncer and HAProxy on this machine: transactions, TLS, bulk, memory, new connections
#         make bench-engines  a relay on io_uring, epoll, tokio, monoio and glommio
#         make fuzz         TARGET=… (all), TIME=seconds or RUNS=… each; needs a nightly toolchain
#         make storm        thousands of sessions beside pgbouncer: memory, stalls, new connections, reloads
#         make fmt          format

export CARGO_TARGET_DIR ?= $(HOME)/.cache/wireward/target

.PHONY: help demo packages test clients regress hostile truth build fmt-check conformance simulate bench bench-peers bench-engines storm fuzz fmt

SEEDS ?= 100000
FROM ?= 0
SECONDS ?= 3600
STATEMENTS ?= 50000

help:
	@sed -n 's/^# \{0,1\}//p; /^$$/q' Makefile

demo: packages
	cargo run --release -p dataplane -- demo

packages:
	bash .ci/run packages

# What .ci/run calls. One profile builds everything, so that nothing is compiled twice.
test: build fmt-check
	cargo test --workspace
	cargo test -p ring --features loom --test loom

clients:
	WIREWARD_CLIENTS=all cargo test -p tests --test e2e_clients

regress:
	bash tests/regress/fetch.sh
	WIREWARD_REGRESS=all cargo test -p tests --test regress

hostile:
	WIREWARD_HOSTILE_SECONDS=$(SECONDS) WIREWARD_HOSTILE_SEED=$(or $(SEED),$(shell date +%s)) cargo test -p tests --test e2e_generator

truth:
	bash tests/regress/fetch.sh
	WIREWARD_TRUTH_STATEMENTS=$(STATEMENTS) cargo test -p tests --test e2e_truth

build:
	cargo build --workspace --all-targets

fmt-check:
	cargo fmt --all --check

# Optimised: then all 910,000 runs take two minutes, otherwise most of an hour.
conformance:
	WIREWARD_CUTS=every cargo test --release -p dataplane --lib golden_exchanges

# Each seed once (CI runs its 2,000 twice); says where it is every 5,000, so that a run that was stopped goes on with FROM.
simulate:
	WIREWARD_SIM_SEEDS=$(SEEDS) WIREWARD_SIM_FROM=$(FROM) cargo test -q -p dataplane --test simulation -- --nocapture

bench:
	cargo bench -p benches

bench-peers:
	python3 benches/peers/run.py
	python3 benches/peers/storm.py --only memory --only connects

fuzz:
	bash fuzz/run $(or $(TARGET),all)

storm:
	python3 benches/peers/storm.py

bench-engines:
	python3 benches/engines/run.py

fmt:
	cargo fmt --all
