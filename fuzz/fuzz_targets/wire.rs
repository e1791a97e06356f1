//! Fuzz target for records of the kernel side.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| conntrace_fuzz::wire(bytes));
