//! Totals and losses under constant load. This is a separate program: every tracer sees the whole
//! host, and totals are exact only on a quiet host.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use conntrace_testnet::{self, FAR_V4, ports};
use conntrace_tests::{TracerProcess, assert_adds_up, attempt, live_test, run};

pub(crate) fn main() -> ExitCode {
    run(vec![live_test("summaries", summaries)])
}

/// Every second has its summary.
fn summaries() {
    let tracer = TracerProcess::start(&["--summary", "1", "--no-stalls"]);
    conntrace_testnet::run("load", |_| {
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(5_500) {
            attempt((FAR_V4, ports::RESETS));
        }
    })
    .unwrap();
    let lines = tracer.stop();
    let summaries = lines.iter().filter(|line| line["type"] == "summary");
    assert!(
        summaries.count() >= 5,
        "four by the clock and the final one"
    );
    assert_adds_up(lines.last().unwrap());
}
