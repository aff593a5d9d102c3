//! The login to a hostile upstream: `bodies/scram.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bodies::run("scram", input));
