//! Fuzzes patterns and the paths matched against them.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| holdfast_fuzz::route(bytes));
