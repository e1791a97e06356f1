//! Causes on a machine without an idle processor.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    ops::Range,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};

use conntrace_tests::{
    TracerProcess, attempt, in_role_to, is_slow, live_test, own_netns, remote_of_role, role, run,
    unless,
};
use serde_json::Value;

/// Busy threads: three for each of two processors.
const BUSY: usize = 6;
/// Attempts of each kind, each by its own process.
const EACH: u16 = 60;
/// Least number of attempts of each kind with a cause.
const DIAGNOSED_MIN: usize = 54;
/// Ports without a listener.
const CLOSED: Range<u16> = 4400..4400 + EACH;
/// Port with a listener on another loopback address.
const ELSEWHERE: u16 = 4900;

pub(crate) fn main() -> ExitCode {
    if role().is_some() {
        attempt(remote_of_role());
        return ExitCode::SUCCESS;
    }
    run(vec![unless(
        is_slow(),
        live_test("causes_are_right_or_said_to_be_unknown", causes),
    )])
}

/// Runs `act` beside threads that never sleep.
fn while_busy<T>(act: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..BUSY {
            scope.spawn(|| {
                while !stop.load(Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let result = act();
        stop.store(true, Relaxed);
        result
    })
}

fn connect_in_a_process(port: u16) {
    let remote = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let status = in_role_to("connect", remote).status().unwrap();
    assert!(status.success());
}

fn causes() {
    // On the machine's own loopback: no process has to be there for its namespace.
    let tracer = TracerProcess::start(&["--no-stalls", "--port", "4400-4900"]);
    let netns = own_netns();
    let other = Ipv4Addr::new(127, 0, 0, 2);
    let _listener = TcpListener::bind((other, ELSEWHERE)).unwrap();
    while_busy(|| {
        CLOSED.for_each(connect_in_a_process);
        (0..EACH).for_each(|_| connect_in_a_process(ELSEWHERE));
        tracer.wait_for_endings(netns, usize::from(2 * EACH));
    });
    let lines = tracer.lines(|line| line["type"] == "outcome");
    assert_eq!(lines.len(), usize::from(2 * EACH));
    for (code, is_of_it) in [
        ("nothing_listening", CLOSED),
        ("listening_elsewhere", ELSEWHERE..ELSEWHERE + 1),
    ] {
        let port = |line: &&Value| u16::try_from(line["remote"]["port"].as_u64().unwrap()).unwrap();
        let lines: Vec<_> = lines
            .iter()
            .filter(|line| is_of_it.contains(&port(line)))
            .collect();
        let mut counts = BTreeMap::<_, usize>::new();
        for line in &lines {
            let found = line["cause"]["code"].as_str();
            let reason = line["undiagnosed"].as_str();
            *counts.entry((found, reason)).or_default() += 1;
            match (found, reason) {
                (Some(found), _) => {
                    assert_eq!(found, code, "{line:#}");
                    assert_eq!(line["cause"]["certainty"], "certain", "{line:#}");
                }
                (None, Some(_)) => {}
                (None, None) => panic!("no cause, and no reason: {line:#}"),
            }
        }
        eprintln!("{code} of {}: {counts:?}", lines.len());
        let diagnosed = lines.iter().filter(|line| !line["cause"].is_null());
        assert!(diagnosed.count() >= DIAGNOSED_MIN, "{counts:?}");
    }
}
