//! Tracing tiers: the attempts that each must see, and equal lines for the same attempt on all
//! three.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use conntrace_testnet::{
    self, DeadEndRoute, FAR_LOCAL_V4, FAR_LOCAL_V6, FAR_V4, FAR_V6, Testnet, ports,
};
use conntrace_tests::{
    Attempted, TracerProcess, attempt, attempt_on, is_root, kernel_version, lacks_functions,
    lacks_tracefs, live_test, run, tcp, unless,
};
use jiff::Timestamp;
use libtest_mimic::Trial;
use serde_json::Value;

/// Options of a tracing mode, and the coverage that it must have.
struct TracingMode {
    name: &'static str,
    options: &'static [&'static str],
    /// True if kernel functions are hooked.
    functions: bool,
    /// True if system calls are traced.
    calls: bool,
}

const WAYS: [TracingMode; 4] = [
    TracingMode {
        name: "full",
        options: &["--tier", "full"],
        functions: true,
        calls: false,
    },
    TracingMode {
        name: "kprobe",
        options: &["--tier", "kprobe"],
        functions: true,
        calls: false,
    },
    TracingMode {
        name: "tracepoint",
        options: &["--tier", "tracepoint"],
        functions: false,
        calls: false,
    },
    TracingMode {
        name: "syscalls",
        options: &["--tier", "tracepoint", "--trace-syscalls"],
        functions: false,
        calls: true,
    },
];

/// Keys of `coverage` that are true on every tier.
const ALWAYS: [&str; 9] = [
    "established",
    "rst",
    "kernel_timeout",
    "app_timeout",
    "port_exhausted",
    "tuple_in_use",
    "aborted",
    "stall",
    "icmp",
];
/// Keys of `coverage` for attempts that end before `SYN_SENT`.
const BEFORE_SYN: [&str; 3] = ["no_route", "local_denial", "bind_exhausted"];

/// First kernel version that gives reasons for dropped packets.
const DROP_REASONS_SINCE: (u32, u32) = (5, 17);
/// Maximum difference between two tracers' times of the same event.
const APART_MAX: Duration = Duration::from_millis(200);
/// Address outside every network of the testnet.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const FORBIDDEN: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
/// Wait of an application whose attempts count as timed out.
const GIVES_UP_AFTER: Duration = Duration::from_millis(300);

pub(crate) fn main() -> ExitCode {
    let no_tracefs = lacks_tracefs();
    let lacks = |way: &TracingMode| match (way.functions, way.calls) {
        (true, _) if is_root() => lacks_functions(Some(way.name)),
        (_, true) => no_tracefs.clone(),
        _ => None,
    };
    let missing = WAYS.each_ref().map(lacks);
    let mut tests = Vec::new();
    for (way, missing) in WAYS.iter().zip(&missing) {
        let covers: Trial = live_test(&format!("covers_{}", way.name), || covers(way));
        tests.push(unless(missing.clone(), covers));
    }
    // The last mode sees all that the others do.
    for (way, missing) in WAYS.iter().zip(&missing).take(2) {
        let name = format!("{}_says_what_tracepoint_says", way.name);
        let missing = missing.clone().or_else(|| no_tracefs.clone());
        tests.push(unless(
            missing,
            live_test(&name, || say_the_same(way, &WAYS[3])),
        ));
    }
    run(tests)
}

/// `coverage` has at least the keys that the tier guarantees, and claims nothing that the tier
/// cannot see.
fn covers(way: &TracingMode) {
    let tracer = TracerProcess::start(way.options);
    let start = tracer.lines(|line| line["type"] == "start").remove(0);
    tracer.stop();
    let tier = if way.calls { "tracepoint" } else { way.name };
    assert_eq!(start["tier"], tier, "{start:#}");
    let sees = |key: &str| start["coverage"][key].as_bool().unwrap();
    for key in ALWAYS {
        assert!(sees(key), "{key} in {start:#}");
    }
    for key in ["local_drop", "drops_elsewhere", "translations"] {
        let gives_reasons = kernel_version() >= DROP_REASONS_SINCE;
        assert_eq!(sees(key), gives_reasons, "{key} in {start:#}");
    }
    assert_eq!(sees("icmp6_detail"), way.functions, "{start:#}");
    for key in BEFORE_SYN {
        assert_eq!(sees(key), way.functions || way.calls, "{key} in {start:#}");
    }
}

/// Both tracers see the same attempts. All fields of their lines are equal, except those that only
/// one of them can know.
fn say_the_same(way: &TracingMode, other: &TracingMode) {
    // Causes depend on details of an answer that differ between the tiers.
    let options = ["--all", "--no-diagnosis"];
    let all = |way: &TracingMode| TracerProcess::start(&[&options, way.options].concat());
    let tracers = [all(way), all(other)];
    let (netns, count) =
        conntrace_testnet::run("tiers", |testnet| (testnet.netns, provoke(testnet))).unwrap();
    for tracer in &tracers {
        tracer.wait_for_endings(netns, count);
    }
    let [lines, others] = tracers.map(|tracer| {
        let mut lines = tracer.stop();
        lines.retain(|line| line["netns"] == netns);
        lines
    });
    let outcomes = |lines: &[Value]| {
        lines
            .iter()
            .filter(|line| line["type"] == "outcome")
            .count()
    };
    assert_eq!((outcomes(&lines), outcomes(&others)), (count, count));
    assert_eq!(lines.len(), others.len(), "{lines:#?} {others:#?}");
    for (line, other) in lines.iter().zip(&others) {
        assert_same(line, other);
    }
}

fn assert_same(line: &Value, other: &Value) {
    for moment in ["time", "started"] {
        let at = |line: &Value| line[moment].as_str().unwrap().parse::<Timestamp>().unwrap();
        let apart = at(line).duration_since(at(other)).unsigned_abs();
        assert!(apart < APART_MAX, "{moment} of {line:#} {other:#}");
    }
    let mut line = line.clone();
    // Times differ, because each tracer reads the clock itself.
    for of_time in ["time", "started", "elapsed_us", "attempt_id", "message"] {
        line[of_time] = other[of_time].clone();
    }
    // Without hooked functions only the errno is known here.
    if other["reply"]["icmp_type"].is_null()
        && other["remote"]["addr"]
            .as_str()
            .is_some_and(|it| it.contains(':'))
    {
        for detail in ["icmp_type", "icmp_code", "from"] {
            line["reply"][detail] = Value::Null;
        }
    }
    assert_eq!(&line, other, "got the left one, expected the right one");
}

/// Makes one attempt with each kind of ending; returns their number.
fn provoke(testnet: &Testnet) -> usize {
    testnet
        .add_dead_end(DeadEndRoute::Prohibit, FORBIDDEN.into())
        .unwrap();
    let far: [IpAddr; 3] = [FAR_V4.into(), FAR_V6.into(), FAR_V4.to_ipv6_mapped().into()];
    let answers = [
        ports::ACCEPTS,
        ports::RESETS,
        ports::PORT_UNREACHABLE,
        ports::HOST_UNREACHABLE,
        ports::ADMIN_PROHIBITED,
    ];
    let mut count = 0;
    for host in far {
        for port in answers {
            attempt((host, port));
        }
        let silent = SocketAddr::new(host, ports::SILENT);
        Attempted::within(GIVES_UP_AFTER, &tcp(silent), silent);
        Attempted::begin(&tcp(silent), silent);
        count += answers.len() + 2;
    }
    for host in [ELSEWHERE, FORBIDDEN] {
        attempt((host, ports::ACCEPTS));
        attempt((host.to_ipv6_mapped(), ports::ACCEPTS));
        count += 2;
    }
    count + without_ports(testnet)
}

/// Makes attempts and binds that find no free port, or one that is in use.
fn without_ports(testnet: &Testnet) -> usize {
    let range = "net/ipv4/ip_local_port_range";
    testnet.set_sysctl(range, "40000 40001").unwrap();
    let mut count = 0;
    for (host, local) in [
        (IpAddr::from(FAR_V4), IpAddr::from(FAR_LOCAL_V4)),
        (FAR_V6.into(), FAR_LOCAL_V6.into()),
    ] {
        let remote = SocketAddr::new(host, ports::ACCEPTS);
        let connected = [(); 3].map(|()| tcp(remote));
        for socket in &connected {
            attempt_on(socket, remote);
        }
        drop(connected);
        let local = SocketAddr::new(local, 0);
        let bound = [(); 3].map(|()| tcp(local));
        let fails = bound
            .iter()
            .filter(|socket| socket.bind(&local.into()).is_err());
        count += 3 + fails.count();
    }
    count
}
