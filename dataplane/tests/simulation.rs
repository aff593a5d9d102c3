//! The whole product above the io trait, without a kernel: a shard over the seeded simulator, with clients, lying upstreams
//! and a recorder that dies. Every seed is a scenario of its own and is held to every oracle.
//!
//! `WIREWARD_SIM_SEEDS=100000` runs more seeds, `WIREWARD_SIM_SEED=17` runs one.

#[path = "simulation/client.rs"]
mod client;
#[path = "simulation/ledger.rs"]
mod ledger;
#[path = "simulation/oracle.rs"]
mod oracle;
#[path = "simulation/scenario.rs"]
mod scenario;
#[path = "simulation/script.rs"]
mod script;
#[path = "simulation/server.rs"]
mod server;
#[path = "simulation/upstream.rs"]
mod upstream;
#[path = "simulation/world.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use dataplane::control::analyser::Analyser;

const SEEDS: u64 = 1_000;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

/// Runs a seed twice: the same seed must move the same bytes.
fn run(seed: u64, analyser: &Analyser) {
    let first = world::run(seed, analyser);
    assert_eq!(first, world::run(seed, analyser), "seed {seed} did not repeat itself");
}

#[test]
fn every_seed_keeps_every_promise() {
    if let Some(seed) = variable("WIREWARD_SIM_SEED") {
        return run(seed, &Analyser::start(1).expect("a thread"));
    }
    let seeds = variable("WIREWARD_SIM_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(0);
    let failed = Mutex::new(Vec::new());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                let analyser = Analyser::start(1).expect("a thread");
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    if catch_unwind(AssertUnwindSafe(|| run(seed, &analyser))).is_err() {
                        failed.lock().expect("no panic holds it").push(seed);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no panic holds it");
    if let Some(seed) = failed.iter().min() {
        panic!(
            "{} of {seeds} seeds failed: {failed:?}\nrepeat one: WIREWARD_SIM_SEED={seed} cargo test -p dataplane --test simulation",
            failed.len()
        );
    }
}
