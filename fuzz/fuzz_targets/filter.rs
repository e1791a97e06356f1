//! Fuzz target for filters and command lines.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| conntrace_fuzz::filter(bytes));
