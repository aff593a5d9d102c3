//! A hostile upstream behind its login: `bodies/backend.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bodies::run("backend", input));
