//! The ring on hostile memory: `bodies/ring_memory.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bodies::run("ring", input));
