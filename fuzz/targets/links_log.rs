//! Fuzzes replay of the log of changed links.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| holdfast_fuzz::links_log(bytes));
