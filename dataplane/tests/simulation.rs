//! The whole product above the io trait, without a kernel: shards over the seeded simulator, with clients, lying upstreams,
//! cancel requests, reloads, a stop, tokens that expire, panics, and a recorder that dies and comes back. Every seed is a
//! scenario of its own and is held to every oracle.
//!
//! `WIREWARD_SIM_SEED=17` runs one seed and shows all of it. `make simulate SEEDS=100000` runs many more than CI does, each
//! once, and tells what has happened; SIMULATION.md has its last result.

#[path = "simulation/cancel.rs"]
mod cancel;
#[path = "simulation/checks.rs"]
mod checks;
#[path = "simulation/client.rs"]
mod client;
#[path = "simulation/law.rs"]
mod law;
#[path = "simulation/ledger.rs"]
mod ledger;
#[path = "simulation/oracle.rs"]
mod oracle;
#[path = "simulation/recorder.rs"]
mod recorder;
#[path = "simulation/scenario.rs"]
mod scenario;
#[path = "simulation/script.rs"]
mod script;
#[path = "simulation/server.rs"]
mod server;
#[path = "simulation/tables.rs"]
mod tables;
#[path = "simulation/tally.rs"]
mod tally;
#[path = "simulation/upstream.rs"]
mod upstream;
#[path = "simulation/wires.rs"]
mod wires;
#[path = "simulation/words.rs"]
mod words;
#[path = "simulation/world.rs"]
mod world;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use tally::Tally;

const SEEDS: u64 = 2_000;
/// How often a long run says where it is.
const PROGRESS_EVERY: u64 = 5_000;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

/// Runs a seed twice: the same seed must move the same bytes.
fn repeat(seed: u64) -> Tally {
    let (first, tally) = world::run(seed);
    assert_eq!(first, world::run(seed).0, "seed {seed} did not repeat itself");
    tally
}

/// Runs all seeds on all CPUs. What has happened, and which seeds have failed.
fn run_all(seeds: Range<u64>, run: impl Fn(u64) -> Tally + Sync) -> (Tally, Vec<u64>) {
    let next = AtomicU64::new(seeds.start);
    let sums = Mutex::new((Tally::default(), Vec::new()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let ran = catch_unwind(AssertUnwindSafe(|| run(seed)));
            let mut sums = sums.lock().expect("no panic holds it");
            match ran {
                Ok(tally) => sums.0.merge(&tally),
                Err(_) => sums.1.push(seed),
            }
            if (seed + 1 - seeds.start).is_multiple_of(PROGRESS_EVERY) {
                eprintln!("seed {seed} of {seeds:?}: {} failed {:?}", sums.1.len(), sums.1);
            }
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..workers).for_each(|_| drop(scope.spawn(work))));
    sums.into_inner().expect("no panic holds it")
}

#[test]
fn every_seed_keeps_every_promise() {
    if let Some(seed) = variable("WIREWARD_SIM_SEED") {
        return println!("{}", repeat(seed));
    }
    let from = variable("WIREWARD_SIM_FROM").unwrap_or(0);
    let (seeds, once) = match variable("WIREWARD_SIM_SEEDS") {
        Some(seeds) => (seeds, true),
        None => (SEEDS, false),
    };
    let run = |seed| if once { world::run(seed).1 } else { repeat(seed) };
    let (tally, mut failed) = run_all(from..from + seeds, run);
    println!("seeds {from}..{}, {} failed\n{tally}", from + seeds, failed.len());
    failed.sort_unstable();
    assert!(
        failed.is_empty(),
        "{} of {seeds} seeds failed: {failed:?}\nrepeat one: WIREWARD_SIM_SEED={} cargo test -p dataplane --test simulation",
        failed.len(),
        failed[0]
    );
    assert_eq!(tally.missing(), Vec::<&str>::new(), "never happened, so nothing of it was tested");
}
