//! Twenty thousand attempts at once, of every kind, each of which knows how it
//! ended.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "test code: a panic is a failed test; the workers print what they saw"
)]

use std::{
    collections::{BTreeMap, HashMap},
    env, fs,
    io::Write as _,
    net::{IpAddr, SocketAddr},
    process::{Command, ExitCode, Stdio},
    thread,
    time::Duration,
};

use conntrace::stage::{self, FAR_V4, FAR_V6, Stage, ports};
use conntrace_tests::{Tracer, assert_adds_up, attempt_on, live_test, run, tcp};
use nix::{errno::Errno, unistd::gettid};
use serde_json::Value;

/// Makes this program a worker of the storm: the number of its attempts per thread.
const WORKER: &str = "CONNTRACE_TEST_STORM";
const PROCESSES: usize = 4;
const THREADS: usize = 8;
const ATTEMPTS: usize = 20_000;

/// What a worker does, and what it must be called.
struct Kind {
    to: IpAddr,
    port: u16,
    blocking: bool,
    label: &'static str,
}

const fn kind(to: IpAddr, port: u16, blocking: bool, label: &'static str) -> Kind {
    Kind {
        to,
        port,
        blocking,
        label,
    }
}

const V4: IpAddr = IpAddr::V4(FAR_V4);
const V6: IpAddr = IpAddr::V6(FAR_V6);

/// Silence is only asked for without blocking: it is cancelled at once.
const KINDS: [Kind; 12] = [
    kind(V4, ports::RESETS, true, "refused"),
    kind(V6, ports::RESETS, true, "refused"),
    kind(V4, ports::ACCEPTS, true, "established"),
    kind(V6, ports::ACCEPTS, true, "established"),
    kind(V4, ports::PORT_UNREACHABLE, true, "refused"),
    kind(V6, ports::PORT_UNREACHABLE, true, "refused"),
    kind(V4, ports::HOST_UNREACHABLE, true, "unreachable"),
    kind(V6, ports::ADMIN_PROHIBITED, true, "unreachable"),
    kind(V4, ports::NET_UNREACHABLE, true, "unreachable"),
    kind(V4, ports::TTL_EXCEEDED, true, "unreachable"),
    kind(V4, ports::SILENT, false, "cancelled"),
    kind(V6, ports::SILENT, false, "cancelled"),
];

fn main() -> ExitCode {
    if let Some(count) = env::var_os(WORKER) {
        work(count.to_str().unwrap().parse().unwrap());
        return ExitCode::SUCCESS;
    }
    run(vec![live_test("mixed", storm)])
}

/// What a thread saw: its attempts in order, as label and errno.
type Seen = BTreeMap<u32, Vec<(String, Option<String>)>>;

fn storm() {
    let tracer = Tracer::start(&["--all"]);
    let (netns, opened, seen) = stage::run("storm", play).expect("a stage");
    let of_storm = |line: &Value| line["type"] == "outcome" && line["netns"] == netns;
    tracer.wait_for_endings(netns, ATTEMPTS);
    let lines = tracer.stop();
    let stop = lines.last().unwrap();
    println!("{stop}");
    compare(&seen, lines.iter().filter(|line| of_storm(line)));
    assert_eq!(opened, ATTEMPTS as u64, "TcpActiveOpens of the namespace");
    assert!(
        !lines.iter().any(|line| line["type"] == "loss"),
        "nothing is lost"
    );
    assert_eq!(stop["in_flight"], 0);
    assert_adds_up(stop);
}

/// Every thread's attempts, in its own order, once each and rightly named.
fn compare<'a>(seen: &Seen, lines: impl Iterator<Item = &'a Value>) {
    let mut got: HashMap<u32, Vec<&Value>> = HashMap::new();
    for line in lines {
        let tid = u32::try_from(line["process"]["tid"].as_u64().unwrap()).unwrap();
        got.entry(tid).or_default().push(line);
    }
    let (mut wrong, mut missing, mut double) = (Vec::new(), 0, 0);
    for (tid, expected) in seen {
        let mut lines = got.remove(tid).unwrap_or_default();
        lines.sort_by_key(|line| line["started"].as_str().unwrap());
        missing += expected.len().saturating_sub(lines.len());
        double += lines.len().saturating_sub(expected.len());
        for ((label, errno), line) in expected.iter().zip(lines) {
            if line["label"] != *label || line["errno"].as_str() != errno.as_deref() {
                wrong.push(format!("expected {label} {errno:?}, got {line}"));
            }
        }
    }
    let foreign: usize = got.values().map(Vec::len).sum();
    println!(
        "{} attempts: {} wrong, {missing} missing, {double} double, {foreign} foreign",
        seen.values().map(Vec::len).sum::<usize>(),
        wrong.len(),
    );
    assert!(wrong.is_empty(), "{}", wrong[0]);
    assert_eq!((missing, double, foreign), (0, 0, 0));
}

fn play(stage: &Stage) -> (u32, u64, Seen) {
    // Enough ports for what is established and not yet reset by the far end.
    stage
        .set_sysctl("net/ipv4/ip_local_port_range", "1024 65535")
        .unwrap();
    let before = active_opens();
    let workers: Vec<_> = (0..PROCESSES)
        .map(|_| {
            Command::new(env::current_exe().unwrap())
                .env(WORKER, (ATTEMPTS / PROCESSES / THREADS).to_string())
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let mut seen = Seen::new();
    for worker in workers {
        let output = worker.wait_with_output().unwrap();
        assert!(output.status.success());
        for line in String::from_utf8(output.stdout).unwrap().lines() {
            let mut fields = line.split(' ');
            let tid = fields.next().unwrap().parse().unwrap();
            let label = fields.next().unwrap().to_owned();
            let errno = fields.next().map(str::to_owned);
            seen.entry(tid).or_default().push((label, errno));
        }
    }
    (stage.netns, active_opens() - before, seen)
}

/// `TcpActiveOpens` of the calling thread's namespace: the kernel's own count.
fn active_opens() -> u64 {
    let snmp = fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let mut tcp = snmp.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (tcp.next().unwrap(), tcp.next().unwrap());
    let at = names
        .split(' ')
        .position(|name| name == "ActiveOpens")
        .unwrap();
    values.split(' ').nth(at).unwrap().parse().unwrap()
}

/// A worker process: its threads connect, and print what they saw in the end.
fn work(count: usize) {
    let threads: Vec<_> = (0..THREADS)
        .map(|number| thread::spawn(move || work_thread(number, count)))
        .collect();
    for thread in threads {
        let printed = thread.join().unwrap();
        std::io::stdout().write_all(printed.as_bytes()).unwrap();
    }
}

fn work_thread(number: usize, count: usize) -> String {
    let tid = gettid();
    let mut printed = String::new();
    for i in 0..count {
        let kind = &KINDS[(i * 7 + number * 5) % KINDS.len()];
        let errno = connect(kind);
        printed.push_str(&match errno {
            None => format!("{tid} {}\n", kind.label),
            Some(errno) => format!("{tid} {} {errno:?}\n", kind.label),
        });
    }
    printed
}

/// Connects and closes; what the application was told of the attempt's end.
fn connect(kind: &Kind) -> Option<Errno> {
    let remote = SocketAddr::new(kind.to, kind.port);
    let socket = tcp(remote);
    socket.set_nonblocking(!kind.blocking).unwrap();
    // A socket that is closed with data unsent may not keep its port for long.
    socket.set_linger(Some(Duration::ZERO)).unwrap();
    let errno = attempt_on(&socket, remote).errno;
    match (kind.label, Errno::from_raw(errno)) {
        ("established", Errno::UnknownErrno) if errno == 0 => None,
        ("cancelled", Errno::EINPROGRESS) => None,
        ("refused", told @ Errno::ECONNREFUSED) => Some(told),
        ("unreachable", told) if errno != 0 => Some(told),
        (label, told) => panic!("{label} {remote} ended with {told:?}"),
    }
}
