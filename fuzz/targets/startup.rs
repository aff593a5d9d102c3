//! The first messages of a hostile client: `bodies/startup.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bodies::run("startup", input));
