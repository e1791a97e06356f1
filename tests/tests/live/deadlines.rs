//! Deadlines of an application against a silent host, a hundred attempts each. The label must not
//! depend on luck.

use std::{
    collections::HashMap,
    net::SocketAddr,
    ops::Range,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use conntrace_testnet::{FAR_V4, FAR_V6, ports};
use conntrace_tests::{Attempted, ExpectedLine, ExpectedReply, Live, live_test, run, tcp};
use nix::errno::Errno;
use serde_json::Value;

/// Number of attempts with the same deadline, all at once.
const ATTEMPTS: usize = 100;

/// The tracer's patience: an attempt closed earlier counts as cancelled.
const PATIENCE: Duration = ms(200);

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A deadline of the application, and the label that its attempts must have.
struct Deadline {
    name: &'static str,
    after: Duration,
    /// Accepted range of the time from connect to close in the application.
    lasting: Range<Duration>,
    label: &'static str,
    /// True if the kernel may have retransmitted the SYN by then.
    may_stall: bool,
}

const DEADLINES: [Deadline; 3] = [
    Deadline {
        name: "100_ms",
        after: ms(100),
        lasting: ms(0)..PATIENCE,
        label: "cancelled",
        may_stall: false,
    },
    Deadline {
        name: "250_ms",
        after: ms(250),
        // Before the first retransmission, with room for a timer that is early.
        lasting: PATIENCE..ms(990),
        label: "timed_out",
        may_stall: false,
    },
    Deadline {
        name: "1_s",
        after: ms(1000),
        // Before the second retransmission.
        lasting: PATIENCE..ms(1990),
        label: "timed_out",
        may_stall: true,
    },
];

pub(crate) fn main() -> ExitCode {
    let mut tests = Vec::new();
    for (family, remote) in [
        ("v4", SocketAddr::from((FAR_V4, ports::SILENT))),
        ("v6", (FAR_V6, ports::SILENT).into()),
    ] {
        for deadline in &DEADLINES {
            let name = format!("{}_{family}", deadline.name);
            tests.push(live_test(&name, move || hundred(deadline, remote)));
        }
    }
    run(tests)
}

fn hundred(deadline: &Deadline, remote: SocketAddr) {
    let live = Live::get();
    let scene = live.play_all_lasting(deadline.lasting.clone(), |_| {
        thread::scope(|scope| {
            let threads = [(); ATTEMPTS].map(|()| scope.spawn(|| give_up(remote, deadline.after)));
            threads.map(|thread| thread.join().unwrap()).into()
        })
    });
    let lines = live.endings(&scene, ATTEMPTS);
    let lines = by(&lines, |line| line["process"]["tid"].clone());
    let stalls = live.stalls(&scene);
    let stalls = by(&stalls, |line| line["attempt_id"].clone());
    assert!(stalls.is_empty() || deadline.may_stall, "{stalls:#?}");
    for attempted in &scene.value {
        let line = lines[&attempted.tid.into()];
        let expected = ExpectedLine::gave_up(deadline.label, attempted);
        match stalls.get(&line["attempt_id"]) {
            None => expected.assert_is(line, scene.netns),
            Some(stall) => {
                let stalled = ExpectedLine {
                    syn_sent: 2,
                    syn_retransmitted: 1,
                    ..expected
                };
                stalled.assert_is(line, scene.netns);
                stalled.assert_stall(stall, line, ExpectedReply::None);
            }
        }
    }
}

/// Connects, polls and closes; returns the attempt and its duration.
fn give_up(remote: SocketAddr, after: Duration) -> (Attempted, Duration) {
    let socket = tcp(remote);
    let began = Instant::now();
    let attempted = Attempted::within(after, &socket, remote);
    drop(socket);
    let lasted = began.elapsed();
    assert_eq!(Errno::from_raw(attempted.errno), Errno::EINPROGRESS);
    (attempted, lasted)
}

/// Indexes the lines by a key that is unique to each.
fn by(lines: &[Value], key: impl Fn(&Value) -> Value) -> HashMap<Value, &Value> {
    let keyed: HashMap<_, _> = lines.iter().map(|line| (key(line), line)).collect();
    assert_eq!(keyed.len(), lines.len(), "each for itself");
    keyed
}
