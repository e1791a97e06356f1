//! A scan from outside that the node drops, while a container's connects are dropped there too.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use conntrace_testnet::enter_bare;
use conntrace_tests::{
    Dir, LinesFile, NODE_V4, RawSyns, RoutedNet, SERVER_V4, cpu_time, each_line, give_up, is_slow,
    lacks_drop_reasons, of_type, own_netns, play_routed, role, rules, run_one_by_one, server,
    unless_all, with_nft, within,
};
use nix::sys::signal::Signal;
use serde_json::Value;

/// Port that the node drops connects to, and one that is scanned.
const DROPPED: u16 = 8000;
const SCANNED: u16 = 22;
/// Rate of the scan, and the least that it must reach for the test to say anything.
const PER_SECOND: u32 = 200_000;
const PER_SECOND_MIN: f64 = 50_000.0;
const BATCH: u32 = 500;
/// Number of the container's connects during the scan.
const CONNECTS: usize = 5;
/// Part of a processor that the agent may use meanwhile.
const CPU_MAX: f64 = 0.1;
/// Time for the scan to begin, and for the last line: each waits a second for its cause at most.
const START: Duration = Duration::from_millis(200);
const SETTLE: Duration = Duration::from_secs(2);
const RULES: &str = "table inet f { \
     chain input { type filter hook input priority 0; tcp dport 22 counter drop; }; \
     chain forward { type filter hook forward priority 0; \
     tcp dport 8000 drop comment \"no entry\"; }; }";

pub(crate) fn main() -> ExitCode {
    if let Some(role) = role() {
        return play_routed(&role);
    }
    let tests = vec![with_nft("of_the_node", of_the_node)];
    let tests = unless_all(lacks_drop_reasons(), tests);
    run_one_by_one(unless_all(is_slow(), tests))
}

/// Scans the node until it is told to stop, and returns the number of SYNs a second.
fn scan(is_over: &AtomicBool) -> f64 {
    let mut syns = RawSyns::to((NODE_V4, SCANNED));
    let began = Instant::now();
    let mut sent = 0_u32;
    while !is_over.load(Ordering::Relaxed) {
        for number in sent..sent + BATCH {
            let [_, b, c, d] = number.to_be_bytes();
            syns.send((Ipv4Addr::new(10, 100 + b, c, d), 40_000));
        }
        sent += BATCH;
        let due = Duration::from_secs_f64(f64::from(sent) / f64::from(PER_SECOND));
        thread::sleep(due.saturating_sub(began.elapsed()));
    }
    f64::from(sent) / began.elapsed().as_secs_f64()
}

/// Plays the scene in a network namespace of its own. Returns the namespace, the rate of the scan, and
/// the part of a processor that the agent used.
fn play(file: &LinesFile) -> (u32, f64, f64) {
    let agent = file.run(&["--summary", "0", "--port", &DROPPED.to_string()]);
    enter_bare().unwrap();
    let net = RoutedNet::with(server((Ipv6Addr::UNSPECIFIED, DROPPED)));
    rules(&net.node, RULES);
    let is_over = AtomicBool::new(false);
    let (rate, part) = thread::scope(|scope| {
        let scan = scope.spawn(|| within(&net.server, || scan(&is_over)));
        thread::sleep(START);
        let (began, before) = (Instant::now(), cpu_time(agent.pid()));
        for _ in 0..CONNECTS {
            give_up((SERVER_V4, DROPPED));
        }
        let spent = (cpu_time(agent.pid()) - before).as_secs_f64();
        let part = spent / began.elapsed().as_secs_f64();
        is_over.store(true, Ordering::Relaxed);
        (scan.join().unwrap(), part)
    });
    thread::sleep(SETTLE);
    agent.stop(Signal::SIGTERM);
    (own_netns(), rate, part)
}

/// The kernel stores nothing of the scan: the agent has nothing to do for it, and the causes of the
/// container's connects are known for certain.
fn of_the_node() {
    let dir = Dir::new("scan");
    let file = LinesFile::new(&dir.0);
    let (netns, rate, part) = thread::scope(|scope| scope.spawn(|| play(&file)).join().unwrap());
    eprintln!("{rate:.0} SYNs a second dropped, the agent used {part:.3} of a processor");
    let lines: Vec<Value> = each_line(file.path()).collect();
    let outcomes: Vec<_> = of_type(&lines, "outcome")
        .filter(|line| line["netns"] == netns)
        .collect();
    assert_eq!(outcomes.len(), CONNECTS, "{outcomes:#?}");
    for line in outcomes {
        let cause = &line["cause"];
        assert_eq!(cause["code"], "local_firewall", "{line:#}");
        assert_eq!(cause["certainty"], "certain", "{line:#}");
        assert!(
            cause["why"].as_str().unwrap().contains("no entry"),
            "{line:#}"
        );
    }
    assert!(rate >= PER_SECOND_MIN, "{rate} SYNs a second");
    assert!(part <= CPU_MAX, "{part} of a processor");
}
