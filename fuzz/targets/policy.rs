//! Policies as text: `bodies/policy.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bodies::run("policy", input));
