//! Fuzzes the heads of journal frames and segments.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| holdfast_fuzz::frame(bytes));
