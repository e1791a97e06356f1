//! Cost of each BPF program, by the kernel's own accounting.

use std::{
    collections::BTreeMap,
    env, fs,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
    path::Path,
    process::{self, Command},
};

use aya::sys::{self, enable_stats};
use conntrace_tests::Cgroup;

use super::{
    measured::{Figure, Section, Spread},
    traced::{TracedAgent, field},
    work::{Workload, closed_loop, forget_closed, refused_loop, reset_loop},
};

/// Attempts of a round. Short rounds are rarely disturbed by other activity.
const ATTEMPTS: u32 = 2_000;
/// Number of attempts that each figure is measured on.
pub(crate) const ATTEMPTS_ALL: u32 = ROUNDS * ATTEMPTS;
const ROUNDS: u32 = 30;

/// Row of the table: its name, the agent's options, the workload, and its ends and close.
type Cost = (
    &'static str,
    &'static [&'static str],
    Workload,
    &'static str,
);

const REFUSED: &str = "both ends, refused";
const RESET: &str = "both ends, RST";
const NONE: &str = "no connection";

const COSTS: [Cost; 10] = [
    ("refused attempt", &[], refused_loop, REFUSED),
    ("connection closed by RST", &[], reset_loop, RESET),
    (
        "connection with an ordinary close",
        &[],
        closed_loop,
        "both ends, FIN",
    ),
    (
        "connection closed by RST, `--all`",
        &["--all"],
        reset_loop,
        RESET,
    ),
    (
        "attempt filtered out by port",
        &["--port", "1"],
        refused_loop,
        REFUSED,
    ),
    (
        "attempt filtered out by process",
        &["--pid", "1", "--to", "127.0.0.0/8"],
        refused_loop,
        REFUSED,
    ),
    (
        "attempt filtered out by cgroup and name",
        &["--cgroup", "/", "--comm", "nobody"],
        refused_loop,
        REFUSED,
    ),
    (
        "refused attempt, `--trace-syscalls`",
        &["--trace-syscalls"],
        refused_loop,
        REFUSED,
    ),
    ("unrelated drop", &[], dropped_loop, NONE),
    (
        "unrelated drop whose reason is looked into",
        &[],
        noted_drop_loop,
        NONE,
    ),
];

/// Nanoseconds and runs of each of our programs so far (`bpf_stats`).
type Stats = BTreeMap<String, (u64, u64)>;

/// Cost of the accounting itself per run in ns, estimated by the shortest program's figure.
fn accounting_ns() -> f64 {
    let cgroup = Cgroup::new(format!("conntrace-bench-{}", process::id()));
    let program = cgroup.run_empty_program().unwrap();
    cgroup.run(Command::new(env::current_exe().unwrap()).args(["child", "--bench"]));
    let info = format!("/proc/self/fdinfo/{}", program.as_raw_fd());
    let (_, ns, runs) = run_time(Path::new(&info)).unwrap();
    ns as f64 / runs as f64
}

pub(crate) fn cost() -> Section {
    // While it is held: unlike the sysctl, nobody else can turn it off.
    let accounted = enable_stats(sys::Stats::RunTime).expect("the kernel keeps bpf statistics");
    let rows = conntrace_testnet::run("bench", |testnet| {
        forget_closed(testnet);
        COSTS.into_iter().flat_map(cost_rows).collect()
    });
    drop(accounted);
    let about = format!(
        "By the kernel's own accounting (bpf_stats), {ROUNDS} rounds of {ATTEMPTS} each. It adds \
         its own cost to every run. A program of two instructions shows about how much, in the \
         row of its name. Do not subtract it: the sum once came out at -12 ns."
    );
    Section::new("The programs in the kernel", about, rows.unwrap())
}

/// Measures all programs together, and each one that runs.
fn cost_rows((name, options, work, ends): Cost) -> Vec<Figure> {
    // Each time: how fast the machine is changes by the minute.
    let accounting = accounting_ns();
    let mut tracer = TracedAgent::start(options);
    work(ATTEMPTS);
    let began = stats(tracer.pid());
    let mut before = began.clone();
    let mut totals = Vec::new();
    for _ in 0..ROUNDS {
        work(ATTEMPTS);
        let after = stats(tracer.pid());
        let ns: u64 = since(&before, &after).values().map(|(ns, _)| ns).sum();
        totals.push(ns as f64 / f64::from(ATTEMPTS));
        before = after;
    }
    tracer.stop();
    let ran = format!("{ends}, `{}`", tracer.tier());
    let all = Figure::spread(format!("{name}: all programs"), "ns", 0, Spread::of(totals));
    assert!(all.value() > Some(0.0), "{name}: nothing was accounted for");
    let accounted = format!("{name}: a program of two instructions, one run");
    let mut rows = vec![all, Figure::number(accounted, "ns", 0, accounting)];
    for (program, (ns, runs)) in since(&began, &before) {
        // Activity of the rest of the host is not counted.
        if runs > u64::from(ATTEMPTS_ALL / 10) {
            let often = runs as f64 / f64::from(ATTEMPTS_ALL);
            let run = ns as f64 / runs as f64;
            let what = format!("{name}: `{program}`, {often:.2} runs of {run:.0} ns");
            let each = ns as f64 / f64::from(ATTEMPTS_ALL);
            rows.push(Figure::number(what, "ns", 0, each));
        }
    }
    rows.into_iter().map(|row| row.ran(&ran)).collect()
}

fn since(before: &Stats, after: &Stats) -> Stats {
    let grown = |(name, (ns, runs)): (&String, &(u64, u64))| {
        let before = before[name];
        (name.clone(), (ns - before.0, runs - before.1))
    };
    after.iter().map(grown).collect()
}

/// From the fdinfo of the program descriptors that the process holds.
fn stats(pid: u32) -> Stats {
    let names: BTreeMap<u32, String> = aya::programs::loaded_programs()
        .filter_map(Result::ok)
        .map(|info| (info.id(), info.name_as_str().unwrap_or("?").to_owned()))
        .collect();
    let mut stats = Stats::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap() {
        if let Some((id, ns, runs)) = run_time(&entry.unwrap().path())
            && let Some(name) = names.get(&u32::try_from(id).unwrap())
        {
            stats.insert(name.clone(), (ns, runs));
        }
    }
    stats
}

/// A program's id, nanoseconds and runs. Links to programs have the id as well, but
/// no run time.
fn run_time(fdinfo: &Path) -> Option<(u64, u64, u64)> {
    Some((
        field(fdinfo, "prog_id:")?,
        field(fdinfo, "run_time_ns:")?,
        field(fdinfo, "run_cnt:")?,
    ))
}

/// Sends from one thread to a UDP port without a listener. That drop reason is not inspected.
fn dropped_loop(count: u32) {
    send_to((Ipv4Addr::LOCALHOST, 9).into(), count);
}

/// Sends packets that the own firewall drops. That drop reason is inspected.
fn noted_drop_loop(count: u32) {
    let table =
        "table ip t { chain c { type filter hook output priority 0; udp dport 10 drop; }; }";
    assert!(Command::new("nft").arg(table).status().unwrap().success());
    send_to((Ipv4Addr::LOCALHOST, 10).into(), count);
}

fn send_to(remote: SocketAddr, count: u32) {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    for _ in 0..count {
        let _ = socket.send_to(&[], remote);
    }
}
