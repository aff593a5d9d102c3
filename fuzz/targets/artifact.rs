//! Policy artifacts: `bodies/artifact.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bodies::run("artifact", input));
