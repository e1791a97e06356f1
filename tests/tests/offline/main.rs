//! Tests that need neither root nor a traced kernel.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "test code: a panic is a failed test"
)]

mod any_bytes;
mod damage;
mod usage;

use std::process::ExitCode;

use conntrace_tests::run_groups;

fn main() -> ExitCode {
    run_groups(&[
        ("any_bytes", any_bytes::main),
        ("damage", damage::main),
        ("usage", usage::main),
    ])
}
