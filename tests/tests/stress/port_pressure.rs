//! `port_pressure`: a destination that uses up the local ports is reported before none is left, and
//! no other is.

use std::{
    fs,
    io::Read as _,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    process::ExitCode,
    sync::{Barrier, mpsc},
    thread,
    time::{Duration, Instant},
};

use conntrace_testnet::{self, FAR_LOCAL_V4, FAR_V4, FAR_V6, Testnet, ports};
use conntrace_tests::{
    Agent, Dir, LinesFile, assert_adds_up, attempt, attempt_on, check, is_slow, live_test, replay,
    run_one_by_one_with_replay, stdout, tcp, unless,
};
use jiff::Timestamp;
use nix::{libc::EADDRNOTAVAIL, sys::signal::Signal};
use serde_json::Value;
use socket2::Socket;

/// The rate that the first line must be early enough at.
const RATE: u32 = 5000;
/// Percentage of the range that must be left at the report.
const LEFT: usize = 20;
/// Port range of the other scenarios: a test may have that many sockets open.
const RANGE: (u16, u16) = (40_000, 49_999);
const PORTS: usize = 10_000;
/// Rate up to the last tenth of the range, and rate of the last tenth. The slower one leaves time
/// for a check between 95 percent and all of it.
const HELD_RATE: u32 = 1500;
const LAST_RATE: u32 = 200;
/// Waiting time that exceeds the interval between two checks of a level.
const SETTLED: Duration = Duration::from_secs(7);
/// After this long `tcp_tw_reuse` lets a port in `TIME_WAIT` be used again.
const REUSABLE_AFTER: Duration = Duration::from_millis(1100);
const OWN_PORT: u16 = 7000;
/// Interval between two checks for closed connections.
const NAP: Duration = Duration::from_millis(5);

pub(crate) fn main() -> ExitCode {
    let mapped = FAR_V4.to_ipv6_mapped();
    // Where the agent is slower than who connects, levels are skipped.
    let fast = |name: &str, test: Box<dyn Fn() + Send>| unless(is_slow(), live_test(name, test));
    run_one_by_one_with_replay(vec![
        fast("time_wait_at_full_rate", Box::new(time_wait_at_full_rate)),
        fast("held_v4", Box::new(|| held_and_given_back(FAR_V4.into()))),
        fast("held_v6", Box::new(|| held_and_given_back(FAR_V6.into()))),
        fast(
            "held_mapped",
            Box::new(move || held_and_given_back(mapped.into())),
        ),
        live_test("what_leaves_no_socket", what_leaves_no_socket),
        live_test("what_can_be_reused", what_can_be_reused),
        live_test("split_over_two", split_over_two),
        live_test("namespaces_apart", namespaces_apart),
        live_test("not_asked_for", not_asked_for),
    ])
}

/// Agent that traces this namespace, and its lines.
struct PressureAgent {
    agent: Agent,
    file: LinesFile,
    dir: Dir,
}

impl PressureAgent {
    fn start(netns: &[u32], options: &[&str]) -> Self {
        let dir = Dir::new("port-pressure");
        let file = LinesFile::new(&dir.0);
        let recording = dir.file("recording");
        let netns: Vec<_> = netns.iter().map(u32::to_string).collect();
        let mut all = vec!["--summary", "0", "--record", recording.to_str().unwrap()];
        all.extend(netns.iter().flat_map(|netns| ["--netns", netns.as_str()]));
        all.extend(options);
        let agent = file.run(&all);
        Self { agent, file, dir }
    }

    fn on(testnet: &Testnet, options: &[&str]) -> Self {
        Self::start(&[testnet.netns], options)
    }

    /// Waits until there are that many port pressure lines.
    fn wait_for(&self, count: usize) {
        self.file.wait_for("\"type\":\"port_pressure\"", count);
    }

    /// Stops the agent and returns all lines. A replay makes the same, and nothing is uncounted.
    fn stop(self) -> Vec<Value> {
        self.agent.stop(Signal::SIGTERM);
        let lines = self.file.lines();
        let recording = fs::read(self.dir.file("recording")).unwrap();
        assert!(
            stdout(&replay(&recording, &[])) == lines,
            "a replay is the same"
        );
        let silent = replay(&recording, &["--no-diagnosis"]);
        assert!(!stdout(&silent).contains("\"type\":\"port_pressure\""));
        let lines: Vec<_> = lines.lines().map(|line| check(line).unwrap()).collect();
        assert_adds_up(lines.last().unwrap());
        lines
    }
}

fn of_type<'a>(lines: &'a [Value], kind: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["type"] == kind).collect()
}

fn levels(lines: &[Value]) -> Vec<u64> {
    let lines = of_type(lines, "port_pressure");
    let level = |line: &&Value| line["level"].as_u64().unwrap();
    lines.iter().map(level).collect()
}

fn time(line: &Value) -> Timestamp {
    line["time"].as_str().unwrap().parse().unwrap()
}

fn narrow(testnet: &Testnet) {
    let range = format!("{} {}", RANGE.0, RANGE.1);
    set(testnet, "ip_local_port_range", &range);
}

fn set(testnet: &Testnet, name: &str, value: &str) {
    testnet
        .set_sysctl(&format!("net/ipv4/{name}"), value)
        .unwrap();
}

/// Makes that many connects a second until `act` is done. Returns the start time of each.
fn paced(rate: u32, mut act: impl FnMut() -> bool) -> Vec<Timestamp> {
    let (began, every) = (Instant::now(), Duration::from_secs(1) / rate);
    let mut times = Vec::new();
    loop {
        let due = every * u32::try_from(times.len()).unwrap();
        thread::sleep(due.saturating_sub(began.elapsed()));
        times.push(Timestamp::now());
        if !act() {
            return times;
        }
    }
}

/// Holds that many further connections.
fn hold(held: &mut Vec<Socket>, remote: impl Into<SocketAddr>, count: usize) {
    let remote = remote.into();
    for _ in 0..count {
        let socket = tcp(remote);
        assert_eq!(attempt_on(&socket, remote).errno, 0);
        held.push(socket);
    }
}

/// Closes the connections by RST, which releases their ports at once.
fn reset(held: Vec<Socket>) {
    for socket in held {
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    }
}

fn listen(addr: Ipv4Addr) -> (TcpListener, SocketAddr) {
    let own = SocketAddr::from((addr, OWN_PORT));
    let server = tcp(own);
    server.bind(&own.into()).unwrap();
    // Should it fall behind, no SYN is dropped for that.
    server.listen(4096).unwrap();
    (TcpListener::from(server), own)
}

/// A server that closes first: `TIME_WAIT` is on its side.
fn closes_first(addr: Ipv4Addr) -> SocketAddr {
    let (server, own) = listen(addr);
    thread::spawn(move || server.incoming().for_each(drop));
    own
}

/// A server that lets its clients close first. Now and then, for all of them: woken by
/// each it would keep them from connecting on a busy machine.
fn closes_last(addr: Ipv4Addr) -> SocketAddr {
    let (server, own) = listen(addr);
    server.set_nonblocking(true).unwrap();
    thread::spawn(move || {
        let mut clients = Vec::new();
        loop {
            thread::sleep(NAP);
            clients.extend(server.incoming().map_while(Result::ok));
            clients.retain_mut(|client| {
                client.set_nonblocking(true).unwrap();
                client.read(&mut [0]).is_err()
            });
        }
    });
    own
}

/// The range of every host, filled with `TIME_WAIT` at 5,000 connects a second: the line
/// comes with far more than a fifth of it to go. Not to the end: from one half on the
/// kernel takes a millisecond to find a port.
fn time_wait_at_full_rate() {
    let (available, enough) = (60_999 - 32_768 + 1, 15_500);
    let (lines, times) = conntrace_testnet::run("pressure", |testnet| {
        set(testnet, "tcp_tw_reuse", "0");
        set(testnet, "tcp_max_tw_buckets", "100000");
        let server = closes_last(FAR_LOCAL_V4);
        let traced = PressureAgent::on(testnet, &[]);
        let mut count = 0;
        let times = paced(RATE, || {
            tcp(server).connect(&server.into()).unwrap();
            count += 1;
            count < enough
        });
        traced.wait_for(1);
        (traced.stop(), times)
    })
    .unwrap();
    assert_eq!(levels(&lines), [50]);
    let line = of_type(&lines, "port_pressure")[0];
    let before = times.partition_point(|began| *began <= time(line));
    let took = times[before - 1].duration_since(times[0]);
    eprintln!("{} after {before} connects in {took:.1}", line["message"]);
    let left = available - before;
    assert!(left >= available * LEFT / 100, "{left} connects to go");
    assert_eq!(line["range"], serde_json::json!([32_768, 60_999]));
    let (used, waiting) = (&line["used"], &line["states"]["time_wait"]);
    assert!(
        waiting.as_u64() >= used.as_u64().map(|used| used * 9 / 10),
        "{line}"
    );
}

/// Connections that are held, to the last port: a line per level, and one when they are
/// gone. Then it begins anew.
fn held_and_given_back(host: IpAddr) {
    let remote = SocketAddr::new(host, ports::ACCEPTS);
    let (netns, lines) = conntrace_testnet::run("pressure", |testnet| {
        narrow(testnet);
        let traced = PressureAgent::on(testnet, &[]);
        let mut held = Vec::new();
        let mut next = || {
            let socket = tcp(remote);
            let attempted = attempt_on(&socket, remote);
            held.push(socket);
            (held.len(), attempted.errno)
        };
        paced(HELD_RATE, || next().0 < PORTS * 9 / 10);
        paced(LAST_RATE, || next().1 != EADDRNOTAVAIL);
        assert_eq!(held.len(), PORTS + 1);
        traced.wait_for(3);
        reset(held);
        traced.wait_for(4);
        let mut held = Vec::new();
        hold(&mut held, remote, PORTS * 6 / 10);
        traced.wait_for(5);
        (testnet.netns, traced.stop())
    })
    .unwrap();
    assert_eq!(levels(&lines), [50, 80, 95, 0, 50]);
    let failed = lines
        .iter()
        .position(|line| line["type"] == "outcome")
        .unwrap();
    assert_eq!(levels(&lines[..failed]), [50, 80, 95], "before the failure");
    for line in of_type(&lines, "port_pressure") {
        eprintln!("{}", line["message"]);
        let canonical = host.to_canonical().to_string();
        assert_eq!(line["remote"]["addr"], canonical.as_str());
        assert_eq!(line["remote"]["port"], ports::ACCEPTS);
        assert_eq!(line["netns"], netns);
        assert_eq!(line["local"]["port"], Value::Null);
        let (used, level) = (
            line["used"].as_u64().unwrap(),
            line["level"].as_u64().unwrap(),
        );
        let percent = used * 100 / PORTS as u64;
        assert_eq!(line["percent"], percent);
        assert!(
            if level == 0 {
                percent < 40
            } else {
                percent >= level
            },
            "{line}"
        );
    }
}

/// Far more connects than ports that leave no port in use are not reported: refused ones, and those
/// that the server closes first. Ports that are held at the end are reported.
fn what_leaves_no_socket() {
    let lines = conntrace_testnet::run("pressure", |testnet| {
        narrow(testnet);
        let server = closes_first(FAR_LOCAL_V4);
        let traced = PressureAgent::on(testnet, &[]);
        for _ in 0..2 * PORTS {
            attempt((FAR_V4, ports::RESETS));
        }
        for _ in 0..PORTS {
            let client = tcp(server);
            assert_eq!(attempt_on(&client, server).errno, 0);
            let mut client = std::net::TcpStream::from(client);
            assert_eq!(client.read(&mut [0]).unwrap(), 0);
        }
        thread::sleep(Duration::from_secs(1));
        let mut held = Vec::new();
        hold(&mut held, (FAR_V4, ports::ACCEPTS), PORTS * 6 / 10);
        traced.wait_for(1);
        traced.stop()
    })
    .unwrap();
    assert_eq!(levels(&lines), [50]);
    assert_eq!(
        of_type(&lines, "port_pressure")[0]["remote"]["port"],
        ports::ACCEPTS
    );
}

/// On loopback the kernel gives a port in `TIME_WAIT` to the next connection after a
/// second, where `tcp_tw_reuse` is 2: that is no shortage. Where it is 0, it is.
fn what_can_be_reused() {
    let lines = conntrace_testnet::run("pressure", |testnet| {
        narrow(testnet);
        set(testnet, "tcp_max_tw_buckets", "100000");
        let server = closes_last(Ipv4Addr::LOCALHOST);
        let connect = |count: usize| (0..count).for_each(|_| drop(attempt(server)));
        set(testnet, "tcp_tw_reuse", "0");
        connect(PORTS * 7 / 10);
        set(testnet, "tcp_tw_reuse", "2");
        thread::sleep(REUSABLE_AFTER);
        let traced = PressureAgent::on(testnet, &[]);
        connect(PORTS * 2 / 10);
        thread::sleep(Duration::from_secs(1));
        set(testnet, "tcp_tw_reuse", "0");
        connect(PORTS / 10);
        traced.wait_for(1);
        traced.stop()
    })
    .unwrap();
    assert_eq!(levels(&lines), [50]);
    let line = of_type(&lines, "port_pressure")[0];
    assert_eq!(line["reusable"], 0);
    assert!(
        line["states"]["time_wait"].as_u64() >= Some(PORTS as u64 * 6 / 10),
        "{line}"
    );
}

/// 30 % for each of two hosts are no pressure; 60 % for one of them are.
fn split_over_two() {
    let [a, b, c, d] = FAR_V4.octets();
    let other = SocketAddr::from(([a, b, c, d + 1], ports::ACCEPTS));
    let lines = conntrace_testnet::run("pressure", |testnet| {
        narrow(testnet);
        let traced = PressureAgent::on(testnet, &[]);
        let mut held = Vec::new();
        for _ in 0..10 {
            hold(&mut held, (FAR_V4, ports::ACCEPTS), PORTS * 3 / 100);
            hold(&mut held, other, PORTS * 3 / 100);
        }
        thread::sleep(SETTLED);
        hold(&mut held, other, PORTS * 3 / 10);
        traced.wait_for(1);
        thread::sleep(SETTLED);
        traced.stop()
    })
    .unwrap();
    assert_eq!(levels(&lines), [50]);
    let line = of_type(&lines, "port_pressure")[0];
    assert_eq!(line["remote"]["addr"], other.ip().to_string());
    assert!(
        line["used"].as_u64().unwrap() <= PORTS as u64 * 6 / 10,
        "{line}"
    );
}

/// The same addresses in two namespaces: each has its own ports.
fn namespaces_apart() {
    let remote = SocketAddr::from((FAR_V4, ports::ACCEPTS));
    let (numbers, stages) = mpsc::channel();
    let (held, both_hold) = (Barrier::new(3), Barrier::new(3));
    let play = |more: usize| {
        conntrace_testnet::run("pressure", |testnet| {
            narrow(testnet);
            numbers.send(testnet.netns).unwrap();
            held.wait();
            let mut sockets = Vec::new();
            hold(&mut sockets, remote, PORTS * 3 / 10);
            thread::sleep(SETTLED);
            hold(&mut sockets, remote, more);
            both_hold.wait();
            testnet.netns
        })
        .unwrap()
    };
    let (netns, lines) = thread::scope(|scope| {
        let _calm = scope.spawn(|| play(0));
        let pressed = scope.spawn(|| play(PORTS * 3 / 10));
        let both = [stages.recv().unwrap(), stages.recv().unwrap()];
        let traced = PressureAgent::start(&both, &[]);
        held.wait();
        traced.wait_for(1);
        thread::sleep(Duration::from_secs(1));
        let lines = traced.stop();
        both_hold.wait();
        (pressed.join().unwrap(), lines)
    });
    assert_eq!(levels(&lines), [50]);
    let line = of_type(&lines, "port_pressure")[0];
    assert_eq!(line["netns"], netns);
    assert!(
        line["used"].as_u64().unwrap() <= PORTS as u64 * 6 / 10,
        "{line}"
    );
}

/// Without diagnosis, or for untraced attempts, no port pressure is reported.
fn not_asked_for() {
    for options in [&["--no-diagnosis"][..], &["--port", "1"]] {
        let lines = conntrace_testnet::run("pressure", |testnet| {
            narrow(testnet);
            let traced = PressureAgent::on(testnet, options);
            let mut held = Vec::new();
            hold(&mut held, (FAR_V4, ports::ACCEPTS), PORTS * 7 / 10);
            thread::sleep(Duration::from_secs(2));
            traced.stop()
        })
        .unwrap();
        assert!(levels(&lines).is_empty(), "{options:?}");
    }
}
