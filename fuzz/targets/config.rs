//! Fuzzes the configuration's text.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| holdfast_fuzz::config(bytes));
