//! Fuzzes the loading of a snapshot.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| holdfast_fuzz::snapshot(bytes));
