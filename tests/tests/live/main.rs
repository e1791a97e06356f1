//! Tests that provoke every kind of ending on the live kernel, in a group for each topic.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "test code: a panic is a failed test"
)]

mod aborted;
mod agents_place;
mod before_syn;
mod binds;
mod callers;
mod cancelled;
mod catalogue;
mod causes;
mod causes_calls;
mod causes_hosts;
mod command;
mod deadlines;
mod degraded;
mod demo;
mod drops;
mod established;
mod exe;
mod fast_open;
mod filters;
mod firewall_walk;
mod fixes;
mod handshakes;
mod mptcp;
mod names;
mod output_file;
mod port_ranges;
mod ports;
mod privileges;
mod process;
mod record;
mod recovered;
mod refused;
mod remembered;
mod replay;
mod reused_socket;
mod routes;
mod service;
mod socket_paths;
mod soft_errors;
mod surfaces;
mod tiers;
mod timed_out;
mod under_way;
mod unreachable;
mod verifier;
mod went_away;
mod woken;

use std::process::ExitCode;

use conntrace_tests::run_groups;

fn main() -> ExitCode {
    run_groups(&[
        ("aborted", aborted::main),
        ("agents_place", agents_place::main),
        ("before_syn", before_syn::main),
        ("binds", binds::main),
        ("callers", callers::main),
        ("cancelled", cancelled::main),
        ("catalogue", catalogue::main),
        ("causes", causes::main),
        ("causes_calls", causes_calls::main),
        ("causes_hosts", causes_hosts::main),
        ("command", command::main),
        ("deadlines", deadlines::main),
        ("degraded", degraded::main),
        ("demo", demo::main),
        ("drops", drops::main),
        ("established", established::main),
        ("exe", exe::main),
        ("fast_open", fast_open::main),
        ("filters", filters::main),
        ("firewall_walk", firewall_walk::main),
        ("fixes", fixes::main),
        ("handshakes", handshakes::main),
        ("mptcp", mptcp::main),
        ("names", names::main),
        ("output_file", output_file::main),
        ("port_ranges", port_ranges::main),
        ("ports", ports::main),
        ("privileges", privileges::main),
        ("process", process::main),
        ("record", record::main),
        ("recovered", recovered::main),
        ("refused", refused::main),
        ("remembered", remembered::main),
        ("replay", replay::main),
        ("reused_socket", reused_socket::main),
        ("routes", routes::main),
        ("service", service::main),
        ("socket_paths", socket_paths::main),
        ("soft_errors", soft_errors::main),
        ("surfaces", surfaces::main),
        ("tiers", tiers::main),
        ("timed_out", timed_out::main),
        ("under_way", under_way::main),
        ("unreachable", unreachable::main),
        ("verifier", verifier::main),
        ("went_away", went_away::main),
        ("woken", woken::main),
    ])
}
