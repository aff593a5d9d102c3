//! pgbench through the gateway, with many clients and in each of its three protocols.

use std::process::ExitCode;
use tests::suite::{Case, run};
use tests::world::{Shown, World};

fn main() -> ExitCode {
    run(vec![
        Case::new("tables_are_made_and_filled_through_the_gateway", initialise),
        Case::new("simple_protocol_runs_for_eight_clients", |world| bench(world, "simple", "tpcb-like")),
        Case::new("extended_protocol_runs_for_eight_clients", |world| bench(world, "extended", "tpcb-like")),
        Case::new("prepared_protocol_runs_for_eight_clients", |world| bench(world, "prepared", "tpcb-like")),
        Case::new("prepared_selects_run_for_eight_clients", |world| bench(world, "prepared", "select-only")),
        Case::new("a_connection_for_every_transaction_works", reconnecting),
        Case::new("pipelines_of_pgbench_work", pipeline),
        Case::new("the_balances_add_up_afterwards", balances),
    ])
}

const TRANSACTIONS: usize = 100;
const CLIENTS: usize = 8;

fn initialise(world: &World) {
    let shown = Shown::of(world.tool(&world.through("dba"), "pgbench", &["-i", "-s", "1", "-I", "dtgvpf", "-q"]));
    assert!(shown.success, "{shown:?}");
    let counted = world.psql(&world.direct(), &["select count(*) from pgbench_accounts"]);
    counted.must_succeed().must_print("100000");
}

fn bench(world: &World, protocol: &str, script: &str) {
    go(world, &["-M", protocol, "-b", script]);
}

fn reconnecting(world: &World) {
    go(world, &["-C", "-b", "select-only"]);
}

fn pipeline(world: &World) {
    let script = "\\set a random(1, 100000)\n\\startpipeline\nbegin;\nselect abalance from pgbench_accounts where aid = :a;\n\
                  update pgbench_accounts set abalance = abalance where aid = :a;\nend;\n\\endpipeline\n";
    std::fs::write(world.directory.0.join("pipeline.sql"), script).expect("the directory is writable");
    go(world, &["-M", "extended", "-f", "pipeline.sql"]);
    go(world, &["-M", "prepared", "-f", "pipeline.sql"]);
}

/// Runs pgbench and insists that every transaction of every client was processed.
fn go(world: &World, options: &[&str]) {
    let (clients, transactions) = (CLIENTS.to_string(), TRANSACTIONS.to_string());
    let fixed = ["-n", "-c", &clients, "-j", "2", "-t", &transactions];
    let shown = Shown::of(world.tool(&world.through("dba"), "pgbench", &[&fixed, options].concat()));
    assert!(shown.success, "{shown:?}");
    let all = CLIENTS * TRANSACTIONS;
    shown.must_print(&format!("number of transactions actually processed: {all}/{all}"));
}

fn balances(world: &World) {
    let sums = "select (select sum(bbalance) from pgbench_branches) = (select sum(delta) from pgbench_history), \
                (select count(*) from pgbench_history)";
    let rows = 3 * CLIENTS * TRANSACTIONS;
    world.psql(&world.direct(), &[sums]).must_succeed().must_print(&format!("t|{rows}"));
}
