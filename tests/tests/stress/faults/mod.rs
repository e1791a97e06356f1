//! Faults around the agent. It is stopped, killed and restarted, and its reader is slow or stuck.
//! Namespaces come and go, processes choose hostile names, the clock is set, and processors go
//! offline. In every case each line is right, each attempt is accounted for, and no application
//! waits for the agent.
//!
//! `pressure`, `late`, `record` and `footprint` cover the others: a full ring, queue, attempt map
//! and disk, two agents at once, and leftovers of a killed agent.

mod machine;
mod names;
mod namespaces;
mod output;
mod restart;
mod storm;

use std::process::ExitCode;

use conntrace_tests::{is_slow, live_test, role, run_one_by_one, unless};

pub(crate) fn main() -> ExitCode {
    match role().as_deref() {
        Some(names::ROLE) => return names::connect_by_every_name(),
        Some(_) => return namespaces::connect(),
        None => {}
    }
    run_one_by_one(vec![
        live_test("stopped_for_seconds", output::stopped_for_seconds),
        live_test("stuck_with_stderr", output::stuck_with_stderr),
        unless(is_slow(), live_test("slow_reader", output::slow_reader)),
        unless(
            is_slow(),
            live_test("slow_reader_at_the_end", output::slow_reader_at_the_end),
        ),
        unless(
            is_slow(),
            live_test("nobody_waits_for_it", output::nobody_waits_for_it),
        ),
        unless(
            is_slow(),
            live_test("killed_and_restarted", restart::killed_and_restarted),
        ),
        live_test("namespaces_come_and_go", namespaces::come_and_go),
        names::every_byte_test(),
        unless(
            machine::lacks_own_clock(),
            live_test("clock_is_set", machine::clock_is_set),
        ),
        unless(
            machine::lacks_hotplug(),
            live_test("processors_come_and_go", machine::processors_come_and_go),
        ),
    ])
}
