//! What each program takes, by the kernel's own accounting.

use std::{
    collections::BTreeMap,
    env, fs,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
    process::{self, Command},
};

use conntrace::stage;
use conntrace_tests::Cgroup;

use super::{TRACE_SYSCALLS, Traced, accepted_loop, refused_loop};

/// Attempts behind each figure.
pub(crate) const ATTEMPTS: u32 = 50_000;

/// What costs, with which options, and how it is done that often.
type Cost = (&'static str, &'static [&'static str], fn(u32));

const COSTS: [Cost; 8] = [
    ("refused attempt", &[], refused_loop),
    (
        "successful connection (both ends on this host)",
        &[],
        accepted_loop,
    ),
    ("attempt filtered out", &["--port", "1"], refused_loop),
    (
        "attempt filtered out",
        &["--pid", "1", "--to", "127.0.0.0/8"],
        refused_loop,
    ),
    (
        "attempt filtered out",
        &["--cgroup", "/", "--comm", "nobody"],
        refused_loop,
    ),
    ("refused attempt", TRACE_SYSCALLS, refused_loop),
    ("unrelated drop", &[], dropped_loop),
    (
        "unrelated drop whose reason is looked into",
        &[],
        noted_drop_loop,
    ),
];

/// Nanoseconds and runs of each of our programs so far (`bpf_stats`).
type Stats = BTreeMap<String, (u64, u64)>;

/// What the accounting takes of each run: the shortest program's figure.
fn accounting_ns() -> f64 {
    let cgroup = Cgroup::new(format!("conntrace-bench-{}", process::id())).unwrap();
    let program = cgroup.run_empty_program().unwrap();
    cgroup.run(Command::new(env::current_exe().unwrap()).args(["child", "--bench"]));
    let info = format!("/proc/self/fdinfo/{}", program.as_raw_fd());
    let info = fs::read_to_string(info).unwrap();
    let (_, ns, runs) = run_time(&info).unwrap();
    ns as f64 / runs as f64
}

pub(crate) fn cost() {
    let switch = "/proc/sys/kernel/bpf_stats_enabled";
    fs::write(switch, "1").expect("the kernel keeps bpf statistics");
    println!(
        "\nbpf_stats itself: {:.0} ns a run, by a program of two instructions",
        accounting_ns()
    );
    stage::run("bench", |_| {
        for (name, options, work) in COSTS {
            let tracer = Traced::start(options);
            work(1_000);
            let before = stats(tracer.child.id());
            work(ATTEMPTS);
            let after = stats(tracer.child.id());
            tracer.stop();
            println!("\nkernel cost by bpf_stats per {name}, {ATTEMPTS} of them {options:?}");
            show_stats(&before, &after);
        }
    })
    .unwrap();
    fs::write(switch, "0").unwrap();
}

fn show_stats(before: &Stats, after: &Stats) {
    let mut total = 0.0;
    for (name, (ns, runs)) in after {
        let (ns, runs) = (ns - before[name].0, runs - before[name].1);
        let per_attempt = ns as f64 / f64::from(ATTEMPTS);
        total += per_attempt;
        println!(
            "  {name:<20} {:>6.2} runs  {:>5.0} ns a run  {per_attempt:>5.0} ns",
            runs as f64 / f64::from(ATTEMPTS),
            ns as f64 / runs.max(1) as f64,
        );
    }
    println!("  {:<42} {total:>5.0} ns", "all programs");
}

/// From the fdinfo of the program descriptors that the process holds.
fn stats(pid: u32) -> Stats {
    let names: BTreeMap<u32, String> = aya::programs::loaded_programs()
        .filter_map(Result::ok)
        .map(|info| (info.id(), info.name_as_str().unwrap_or("?").to_owned()))
        .collect();
    let mut stats = Stats::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap() {
        let info = fs::read_to_string(entry.unwrap().path()).unwrap_or_default();
        if let Some((id, ns, runs)) = run_time(&info)
            && let Some(name) = names.get(&u32::try_from(id).unwrap())
        {
            stats.insert(name.clone(), (ns, runs));
        }
    }
    stats
}

/// A program's id, nanoseconds and runs. Links to programs have the id as well, but
/// no run time.
fn run_time(fdinfo: &str) -> Option<(u64, u64, u64)> {
    let field = |name: &str| {
        let line = fdinfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse::<u64>().ok()
    };
    Some((
        field("prog_id:")?,
        field("run_time_ns:")?,
        field("run_cnt:")?,
    ))
}

/// One thread sends to a UDP port that nobody has: the packet is dropped for a
/// reason that is not looked into.
fn dropped_loop(count: u32) {
    send_to((Ipv4Addr::LOCALHOST, 9).into(), count);
}

/// One thread sends what its own firewall drops, which is a reason that is looked
/// into.
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
