//! What the fuzz targets were given, and what they once found, on stable Rust: every seed of `fuzz/corpus/` goes through the
//! body of its target. `fuzz/README.md` says how the targets are run for longer.

#[path = "../fuzz/bodies/lib.rs"]
mod bodies;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use bodies::TARGETS;
use tests::world::tests_path;

/// All corpora together, bytes: they are read by people, too.
const CORPORA_BYTES_MAX: u64 = 1 << 20;
const SEEDS_MIN: usize = 10;

fn fuzz() -> PathBuf {
    tests_path("../fuzz")
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    entries.map(|entry| entry.expect("readable").file_name().into_string().expect("a name in ASCII")).collect()
}

/// Runs all seeds of the targets and says which of them break a promise.
#[track_caller]
fn replay(targets: &[&str]) {
    let mut broken = Vec::new();
    for target in targets {
        let folder = fuzz().join("corpus").join(target);
        let seeds = names(&folder);
        assert!(seeds.len() >= SEEDS_MIN, "{target} has only {} seeds", seeds.len());
        for seed in seeds {
            let input = std::fs::read(folder.join(&seed)).expect("readable");
            let kept = catch_unwind(AssertUnwindSafe(|| bodies::run(target, &input)));
            broken.extend(kept.err().map(|_| format!("{target}/{seed}")));
        }
    }
    assert!(broken.is_empty(), "a promise is broken on {broken:#?}");
}

#[test]
fn sessions_keep_their_promises_on_every_seed() {
    replay(&["frontend", "backend", "startup", "scram"]);
}

#[test]
fn tokens_and_keys_keep_their_promises_on_every_seed() {
    replay(&["jwt", "jwks"]);
}

#[test]
fn policies_and_artifacts_keep_their_promises_on_every_seed() {
    replay(&["policy", "artifact"]);
}

#[test]
fn rings_and_recordings_keep_their_promises_on_every_seed() {
    replay(&["ring", "segment"]);
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
                name.chars().any(char::is_alphabetic)
                    && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
            });
            assert!(is_told, "{target}/{seed}: a seed is called <what-it-is>.bin");
            bytes += std::fs::metadata(folder.join(&seed)).expect("readable").len();
        }
    }
    assert!(
        bytes <= CORPORA_BYTES_MAX,
        "the corpora have {bytes} bytes: leave some out, or make them smaller (`cargo fuzz cmin`)"
    );
}
