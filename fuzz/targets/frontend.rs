//! A hostile client behind its login: `bodies/frontend.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bodies::run("frontend", input));
