# TL;DR   make demo         a sample database and a gateway before it, in one command
#         make test         build, format check, all tests
#         make clients      every client on PostgreSQL 15 and 18, by both drivers, with and without TLS
#         make regress      PostgreSQL's regression suite through the gateway
#         make conformance  the golden exchanges, cut at every single place (about a CPU hour)
#         make bench        criterion benches
#         make bench-peers  beside pgbouncer and HAProxy on this machine
#         make storm        thousands of sessions beside pgbouncer: memory, stalls, new connections, reloads
#         make fmt          format

export CARGO_TARGET_DIR ?= $(HOME)/.cache/wireward/target

.PHONY: help demo packages test clients regress build fmt-check conformance bench bench-peers bench-engines storm fmt

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

build:
	cargo build --workspace --all-targets

fmt-check:
	cargo fmt --all --check

conformance:
	WIREWARD_CUTS=every cargo test -p dataplane --lib golden_exchanges

bench:
	cargo bench -p benches

bench-peers:
	python3 benches/peers/run.py

storm:
	python3 benches/peers/storm.py

bench-engines:
	python3 benches/engines/run.py

fmt:
	cargo fmt --all
