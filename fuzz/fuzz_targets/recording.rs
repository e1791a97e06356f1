//! Fuzz target for recordings, as given and with valid checksums.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| conntrace_fuzz::recording(bytes));
