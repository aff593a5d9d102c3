//! Key sets: `bodies/jwks.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bodies::run("jwks", input));
