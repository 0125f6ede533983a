//! Fuzzes recovery of a damaged journal.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| holdfast_fuzz::journal(bytes));
