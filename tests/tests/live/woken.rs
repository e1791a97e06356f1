//! A failure is told at once, whatever records wait in the ring before it.

use std::{
    net::{Ipv4Addr, TcpListener},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use conntrace_tests::{TracerProcess, attempt, live_test, own_netns, run};
use nix::errno::Errno;

/// Number of failures, each after handshakes of which the agent is told.
const FAILURES: usize = 60;
/// Time from the errno to the line. A record that wakes nobody would wait for the summary.
const SOON: Duration = Duration::from_secs(5);

pub(crate) fn main() -> ExitCode {
    run(vec![live_test("after_answers", after_answers)])
}

fn after_answers() {
    let tracer = TracerProcess::start(&["--no-diagnosis", "--summary", "0"]);
    conntrace_testnet::run("woken", |_| {
        let netns = own_netns();
        for failure in 1..=FAILURES {
            // A handshake on a port that nobody has connected to is news.
            let servers = [(); 3].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
            for server in &servers {
                assert_eq!(attempt(server.local_addr().unwrap()).errno, 0);
            }
            // The agent naps for 4 ms after a record, and sleeps afterwards.
            thread::sleep(Duration::from_millis(failure as u64 % 12));
            let began = Instant::now();
            let refused = attempt((Ipv4Addr::LOCALHOST, 1));
            assert_eq!(refused.errno, Errno::ECONNREFUSED as i32);
            tracer.wait_for_endings(netns, failure);
            let took = began.elapsed();
            assert!(took < SOON, "failure {failure}: {took:?}");
        }
    })
    .expect("a stage");
}
