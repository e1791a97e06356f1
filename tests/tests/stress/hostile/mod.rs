//! Users that make looks at the host hang or last. Others have their lines and causes all the same.

mod crowded;
mod held_exec;

use std::{
    env,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use conntrace_tests::{
    Agent, LinesFile, attempt, each_line, is_slow, lacks_fuse, live_test, matching, of_type, role,
    run_one_by_one, tcp, unless, with_ip, with_nft,
};
use nix::{errno::Errno, sys::signal::Signal};
use serde_json::Value;
use socket2::Socket;

/// User that makes looks hang.
const USER: u32 = 65_534;
/// Time that a signalled agent may take to end.
const END_MAX: Duration = Duration::from_secs(2);
/// Time that the agent may take for the last lines: each waits a second for its cause at most.
const LINES_MAX: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(100);

pub(crate) fn main() -> ExitCode {
    if let Some(role) = role() {
        match &*role {
            "hold" => held_exec::hold(),
            "be_held" => held_exec::be_held(),
            "open" => held_exec::open_environ(),
            "refused" => held_exec::be_refused(),
            "bind" => crowded::bind_in_processes(),
            "bound" => crowded::bind(),
            "rules" => crowded::load_rules(),
            other => panic!("no such role: {other}"),
        }
        return ExitCode::SUCCESS;
    }
    run_one_by_one(vec![
        unless(lacks_fuse(), with_ip("held_exec", held_exec::one)),
        unless(lacks_fuse(), with_ip("held_execs", held_exec::twenty)),
        unless(is_slow(), live_test("many_sockets", crowded::sockets)),
        unless(is_slow(), with_nft("many_rules", crowded::rules)),
    ])
}

/// Port of this host's loopback without a listener, which nobody else gets.
struct ClosedPort {
    address: SocketAddr,
    _bound: Socket,
}

impl ClosedPort {
    fn new() -> Self {
        let bound = tcp((Ipv4Addr::LOCALHOST, 0).into());
        bound
            .bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
            .unwrap();
        let address = bound.local_addr().unwrap().as_socket().unwrap();
        Self {
            address,
            _bound: bound,
        }
    }

    /// Connects so many times, which is refused.
    fn refuse(&self, count: usize) {
        for _ in 0..count {
            let attempted = attempt(self.address);
            assert_eq!(Errno::from_raw(attempted.errno), Errno::ECONNREFUSED);
        }
    }

    fn port(&self) -> u16 {
        self.address.port()
    }
}

/// Waits up to a time limit until this port has so many outcomes.
fn wait_for_outcomes(file: &LinesFile, port: u16, count: usize) {
    let remote = format!("\"port\":{port},");
    let began = Instant::now();
    while matching(&file.lines(), &remote) < count && began.elapsed() < LINES_MAX {
        thread::sleep(POLL);
    }
}

/// Ends the agent in the time that it may take, and returns its messages. The last line is `stop`.
fn stop(agent: Agent, file: &LinesFile) -> (Vec<Value>, String) {
    let began = Instant::now();
    agent.signal(Signal::SIGTERM);
    let (status, errors) = agent.wait();
    let took = began.elapsed();
    assert!(status.success(), "{status}: {errors}");
    assert!(took < END_MAX, "it took {took:?} to end");
    let lines: Vec<_> = each_line(file.path()).collect();
    assert_eq!(lines.last().unwrap()["type"], "stop");
    (lines, errors)
}

/// Returns the outcomes of a port.
fn outcomes(lines: &[Value], port: u16) -> Vec<&Value> {
    let of_port = of_type(lines, "outcome").filter(|line| line["remote"]["port"] == port);
    of_port.collect()
}

/// Checks that a closed local port has this number of lines, and that all but a few know the cause
/// and this program.
fn assert_refused(lines: &[Value], port: u16, count: usize, unknown_max: usize) {
    let lines = outcomes(lines, port);
    assert_eq!(lines.len(), count, "lines of port {port}");
    for line in &lines {
        assert_eq!(line["label"], "refused", "{line:#}");
        assert_nothing_listening(line, &["certain"]);
    }
    let undiagnosed = lines.iter().filter(|line| !line["undiagnosed"].is_null());
    let undiagnosed = undiagnosed.count();
    assert!(
        undiagnosed <= unknown_max,
        "{undiagnosed} of {count} are undiagnosed"
    );
    let program = env::current_exe().unwrap();
    let is_known =
        |line: &&&Value| line["process"]["exe"].as_str().map(Path::new) == Some(&program);
    let without = count - lines.iter().filter(is_known).count();
    assert!(without <= unknown_max, "{without} without their program");
}

/// Checks that a line of a closed port has the right cause with one of these certainties, or none and
/// a reason.
fn assert_nothing_listening(line: &Value, certainties: &[&str]) {
    if line["cause"].is_null() {
        assert!(!line["undiagnosed"].is_null(), "no reason: {line:#}");
    } else {
        assert_eq!(line["cause"]["code"], "nothing_listening", "{line:#}");
        let certainty = line["cause"]["certainty"].as_str().unwrap();
        assert!(certainties.contains(&certainty), "{line:#}");
    }
}
