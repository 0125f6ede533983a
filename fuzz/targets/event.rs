//! Fuzzes the codec of a recorded hit.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| holdfast_fuzz::event(bytes));
