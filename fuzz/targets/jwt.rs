//! Identity tokens: `bodies/jwt.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bodies::run("jwt", input));
