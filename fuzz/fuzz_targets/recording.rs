//! A recording, as it is and with checksums that fit.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| conntrace_fuzz::recording(bytes));
