//! Groups that load the machine, measure it, or flood the agent.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "test code: a panic is a failed test"
)]

mod busy;
mod causes_storm;
mod faults;
mod footprint;
mod hostile;
mod late;
mod limit;
mod load;
mod million;
mod port_pressure;
mod pressure;
mod scan;
mod shares;
mod storm;
mod storms;

use std::process::ExitCode;

use conntrace_tests::run_groups;

fn main() -> ExitCode {
    run_groups(&[
        ("busy", busy::main),
        ("causes_storm", causes_storm::main),
        ("faults", faults::main),
        ("footprint", footprint::main),
        ("hostile", hostile::main),
        ("late", late::main),
        ("limit", limit::main),
        ("load", load::main),
        ("million", million::main),
        ("port_pressure", port_pressure::main),
        ("pressure", pressure::main),
        ("scan", scan::main),
        ("shares", shares::main),
        ("storm", storm::main),
        ("storms", storms::main),
    ])
}
