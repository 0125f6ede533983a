//! Fuzzes hosts as clients and configurations write them.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| holdfast_fuzz::host(bytes));
