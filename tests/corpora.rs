//! What the fuzz targets were given, and what they once found, on stable Rust: every seed of `fuzz/corpus/` goes through the
//! body of its target. `fuzz/README.md` says how the targets are run for longer.

#[path = "../fuzz/bodies/lib.rs"]
mod bodies;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use bodies::TARGETS;

/// All corpora together, bytes: they are read by people, too.
const CORPORA_BYTES_MAX: u64 = 1 << 20;
const SEEDS_MIN: usize = 10;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    entries.map(|entry| entry.expect("readable").file_name().into_string().expect("a name in ASCII")).collect()
}

/// Runs all seeds of the target and says which of them break a promise.
fn replay(target: &str) {
    let folder = fuzz().join("corpus").join(target);
    let seeds = names(&folder);
    assert!(seeds.len() >= SEEDS_MIN, "{target} has only {} seeds", seeds.len());
    let breaks = |seed: &&String| {
        let input = std::fs::read(folder.join(seed)).expect("readable");
        catch_unwind(AssertUnwindSafe(|| bodies::run(target, &input))).is_err()
    };
    let broken: Vec<&String> = seeds.iter().filter(breaks).collect();
    assert!(broken.is_empty(), "seeds of {target} that break a promise: {broken:?}");
}

#[test]
fn sessions_keep_their_promises_on_every_seed() {
    ["frontend", "backend", "startup", "scram"].into_iter().for_each(replay);
}

#[test]
fn tokens_and_keys_keep_their_promises_on_every_seed() {
    ["jwt", "jwks"].into_iter().for_each(replay);
}

#[test]
fn policies_and_artifacts_keep_their_promises_on_every_seed() {
    ["policy", "artifact"].into_iter().for_each(replay);
}

#[test]
fn rings_and_recordings_keep_their_promises_on_every_seed() {
    ["ring", "segment"].into_iter().for_each(replay);
}

#[test]
fn every_target_has_a_wrapper_and_a_corpus_and_nothing_else_is_there() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&fuzz().join("corpus")), targets);
    assert_eq!(names(&fuzz().join("targets")), targets.iter().map(|name| format!("{name}.rs")).collect());
    let manifest = std::fs::read_to_string(fuzz().join("Cargo.toml")).expect("a manifest");
    for name in &targets {
        let wrapper = std::fs::read_to_string(fuzz().join(format!("targets/{name}.rs"))).expect("a wrapper");
        assert!(wrapper.contains(&format!("bodies::run(\"{name}\", input)")), "targets/{name}.rs runs another body");
        assert!(manifest.contains(&format!("path = \"targets/{name}.rs\"")), "{name} is no binary of fuzz/Cargo.toml");
    }
}

#[test]
fn seeds_are_small_and_say_what_they_are() {
    let mut bytes = 0;
    for (target, _) in TARGETS {
        let folder = fuzz().join("corpus").join(target);
        for seed in names(&folder) {
            let is_told = seed.strip_suffix(".bin").is_some_and(|name| {
                name.chars().any(char::is_alphabetic) && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
            });
            assert!(is_told, "{target}/{seed}: a seed is called <what-it-is>.bin");
            bytes += std::fs::metadata(folder.join(&seed)).expect("readable").len();
        }
    }
    assert!(bytes <= CORPORA_BYTES_MAX, "the corpora have {bytes} bytes: `make fuzz-min`, or leave some out");
}
