//! Fuzzes the language picked for a reader.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| holdfast_fuzz::accept_language(bytes));
