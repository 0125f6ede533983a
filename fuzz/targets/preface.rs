//! Fuzzes what load balancers say of clients.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| holdfast_fuzz::preface(bytes));
