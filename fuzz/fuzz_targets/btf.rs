//! Fuzz target for BTF.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| conntrace_fuzz::btf(bytes));
