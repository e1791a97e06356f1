//! Causes on a machine without an idle processor, and on a large one.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    ops::Range,
    process::{Child, Command, ExitCode},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use conntrace_testnet::enter_bare;
use conntrace_tests::{
    Partner, TracerProcess, attempt, cpu_time, in_role, in_role_to, is_slow, live_test, own_netns,
    remote_of_role, role, run, say_and_wait, unless,
};
use serde_json::Value;

/// Busy threads: four for each of two processors.
const BUSY: usize = 8;
/// Namespaces, each with a process.
const NAMESPACES: usize = 120;
/// Further processes, in the machine's own namespace.
const PROCESSES: usize = 1380;
/// Processes that hold connections, one for each of these addresses, and connections of each: one
/// may not have so many files open.
const CONNECTED: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 3, 1), Ipv4Addr::new(127, 0, 3, 2)];
const CONNECTIONS_EACH: usize = 5000;
/// Attempts of each kind, each by its own process, and the interval of two attempts.
const EACH: u16 = 60;
const INTERVAL: Duration = Duration::from_millis(50);
/// Least number of all attempts with a certain cause.
const CERTAIN_MIN: usize = 114;
/// Namespaces, processes and connections of the large machine, and the interval of its attempts.
const LARGE_NAMESPACES: usize = 1000;
const LARGE_PROCESSES: usize = 2000;
const LARGE_CONNECTED: u8 = 10;
const LARGE_INTERVAL: Duration = Duration::from_millis(100);
/// Ports without a listener.
const CLOSED: Range<u16> = 6400..6400 + EACH;
/// Port with a listener on another loopback address.
const ELSEWHERE: u16 = 6900;

pub(crate) fn main() -> ExitCode {
    match role().as_deref() {
        Some("connect") => drop(attempt(remote_of_role())),
        Some("namespace") => {
            enter_bare().unwrap();
            say_and_wait("there");
        }
        Some("connections") => hold_connections(remote_of_role()),
        Some(other) => panic!("no such role: {other}"),
        None => {
            return run(vec![
                unless(is_slow(), live_test("causes", causes)),
                unless(is_slow(), live_test("large", large)),
            ]);
        }
    }
    ExitCode::SUCCESS
}

/// Holds both ends of many connections.
fn hold_connections(address: SocketAddr) {
    let listener = TcpListener::bind(address).unwrap();
    let address = listener.local_addr().unwrap();
    let connect = |_| {
        let stream = TcpStream::connect(address).unwrap();
        (stream, listener.accept().unwrap())
    };
    let _held: Vec<_> = (0..CONNECTIONS_EACH).map(connect).collect();
    say_and_wait("connected");
}

/// Ends what runs beside a test, also when that panics.
struct EndWhenDropped<'a>(&'a AtomicBool);

impl Drop for EndWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Runs `act` beside threads that never sleep, and one that makes and deletes a namespace over and
/// over.
fn while_busy(act: impl FnOnce()) {
    let end = AtomicBool::new(false);
    thread::scope(|scope| {
        let _end = EndWhenDropped(&end);
        for _ in 0..BUSY {
            scope.spawn(|| {
                while !end.load(Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        scope.spawn(|| {
            while !end.load(Relaxed) {
                let namespace = Partner::start(in_role("namespace"));
                assert!(namespace.finish().success());
            }
        });
        act();
    });
}

fn connect_in_a_process(port: u16) {
    let remote = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let status = in_role_to("connect", remote).status().unwrap();
    assert!(status.success());
}

fn start_sleeping(count: usize) -> Vec<Child> {
    let start = |_| Command::new("sleep").arg("600").spawn().unwrap();
    (0..count).map(start).collect()
}

fn end_sleeping(processes: &mut [Child]) {
    for process in processes {
        process.kill().unwrap();
        process.wait().unwrap();
    }
}

/// Every failure is another case, and every one asks for the listeners of all namespaces.
fn large() {
    let namespaces: Vec<_> = (0..LARGE_NAMESPACES)
        .map(|_| Partner::start(in_role("namespace")))
        .collect();
    let mut sleeping = start_sleeping(LARGE_PROCESSES);
    let hold = |host| {
        let address = Ipv4Addr::new(127, 0, 4, host);
        Partner::start(in_role_to("connections", (address, 0).into()))
    };
    let connections: Vec<_> = (0..LARGE_CONNECTED).map(hold).collect();
    let tracer = TracerProcess::start(&["--no-stalls", "--port", "6400-6900"]);
    let before = cpu_time(tracer.pid());
    let began = Instant::now();
    for port in CLOSED {
        connect_in_a_process(port);
        thread::sleep(LARGE_INTERVAL);
    }
    tracer.wait_for_endings(own_netns(), usize::from(EACH));
    let spent = cpu_time(tracer.pid()) - before;
    println!(
        "{EACH} failures in {:?}, CPU time of the agent {spent:?}",
        began.elapsed()
    );
    let lines = tracer.lines(|line| line["type"] == "outcome");
    tracer.stop();
    end_sleeping(&mut sleeping);
    for child in namespaces.into_iter().chain(connections) {
        assert!(child.finish().success());
    }
    println!("{:?}", counts(&lines));
    assert_eq!(lines.len(), usize::from(EACH));
    for line in &lines {
        assert_eq!(line["cause"]["code"], "nothing_listening", "{line:#}");
        assert_eq!(line["cause"]["certainty"], "certain", "{line:#}");
        let others = &line["cause"]["evidence"]["listeners_in_other_namespaces"];
        assert!(others.is_array(), "{line:#}");
    }
}

/// Connects to a port that nobody has and to one that listens elsewhere, in turn.
fn connect_all() {
    let began = Instant::now();
    let mut due = began;
    for port in CLOSED.flat_map(|closed| [closed, ELSEWHERE]) {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        connect_in_a_process(port);
        due += INTERVAL;
    }
    println!("{} attempts took {:?}", 2 * EACH, began.elapsed());
}

fn causes() {
    let start = |_| Partner::start(in_role("namespace"));
    let namespaces: Vec<_> = (0..NAMESPACES).map(start).collect();
    let hold = |address| Partner::start(in_role_to("connections", (address, 0).into()));
    let connections = CONNECTED.map(hold);
    let mut sleeping = start_sleeping(PROCESSES);
    // On the machine's own loopback, as most clients of a host's services.
    let tracer = TracerProcess::start(&["--no-stalls", "--port", "6400-6900"]);
    let other = Ipv4Addr::new(127, 0, 0, 2);
    let _listener = TcpListener::bind((other, ELSEWHERE)).unwrap();
    while_busy(|| {
        connect_all();
        tracer.wait_for_endings(own_netns(), usize::from(2 * EACH));
    });
    let lines = tracer.lines(|line| line["type"] == "outcome");
    end_sleeping(&mut sleeping);
    for child in namespaces.into_iter().chain(connections) {
        assert!(child.finish().success());
    }
    assert_eq!(lines.len(), usize::from(2 * EACH));
    let certain = lines.iter().filter(|line| is_certain(line)).count();
    println!("{:?}", counts(&lines));
    assert!(certain >= CERTAIN_MIN, "{certain} are certain");
    tracer.stop();
}

/// Returns true if the line has its cause for certain. Fails for another cause, and for a line
/// without a cause and a reason.
fn is_certain(line: &Value) -> bool {
    let code = if line["remote"]["port"] == ELSEWHERE {
        "listening_elsewhere"
    } else {
        "nothing_listening"
    };
    match line["cause"]["code"].as_str() {
        Some(found) => assert_eq!(found, code, "{line:#}"),
        None => assert!(!line["undiagnosed"].is_null(), "no reason: {line:#}"),
    }
    line["cause"]["certainty"] == "certain"
}

/// Counts the lines by cause, certainty and reason for an incomplete one.
fn counts(lines: &[Value]) -> BTreeMap<[&str; 3], usize> {
    let mut counts = BTreeMap::new();
    for line in lines {
        let cause = &line["cause"];
        let words = [&cause["code"], &cause["certainty"], &line["undiagnosed"]];
        let words = words.map(|word| word.as_str().unwrap_or("-"));
        *counts.entry(words).or_default() += 1;
    }
    counts
}
