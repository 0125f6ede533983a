//! Fuzzes the approval of targets.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| holdfast_fuzz::target(bytes));
