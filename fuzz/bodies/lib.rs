//! What every fuzz target does with its input, and what must hold then. The targets call it under libFuzzer; the test
//! `tests/corpora.rs` includes this file and runs the committed corpora through it, on stable Rust.
//!
//! Each body goes through the product's own code and panics when a promise is broken. Inputs are scripts where that goes
//! deeper than raw bytes; each module says what its bytes mean.

mod artifact;
mod backend;
mod frontend;
mod identity;
mod input;
mod jwks;
mod jwt;
mod policy;
mod ring_memory;
mod scram;
mod segment;
mod server;
mod stage;
mod startup;

/// A target's name, which is also its corpus folder's, and its body.
pub type Target = (&'static str, fn(&[u8]));

pub const TARGETS: [Target; 10] = [
    ("frontend", frontend::run),
    ("backend", backend::run),
    ("startup", startup::run),
    ("scram", scram::run),
    ("jwt", jwt::run),
    ("jwks", jwks::run),
    ("policy", policy::run),
    ("artifact", artifact::run),
    ("ring", ring_memory::run),
    ("segment", segment::run),
];

/// Runs the body of the target with this name.
///
/// # Panics
/// If a promise is broken, or there is no such target.
pub fn run(name: &str, input: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    target.expect("a name from TARGETS").1(input);
}
