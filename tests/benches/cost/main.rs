//! Benchmark of conntrace's cost on this machine: `cargo xtask bench`.
//!
//! Needs root. Shared machines are noisy: what is added is measured in paired rounds,
//! traced and untraced in turn. A file per part; `measured` holds what came of it, and
//! `report` makes text, JSON and bars of that. `cargo xtask bench` makes the page.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark: what goes wrong ends it, and it prints its figures"
)]

mod growth;
mod idle;
mod kernel;
mod latency;
mod load;
mod measured;
mod memory;
mod peers;
mod ratio;
mod record;
mod report;
mod start;
mod traced;
mod work;

use std::{fs, path::Path, process::ExitCode};

use conntrace_tests::{is_root, mount_tracefs};

use measured::Section;
use report::{BenchHost, BenchReport};

/// Name of a part and its measurement.
type Part = (&'static str, fn() -> Section);

const PARTS: [Part; 9] = [
    ("loop", ratio::connects),
    ("kernel", kernel::cost),
    ("record", record::userspace),
    ("load", load::failures),
    ("latency", latency::latency),
    ("start", start::start),
    ("idle", idle::minute),
    ("growth", growth::growth),
    ("syscalls", ratio::syscalls),
];

/// Sysctl of the accounting of all BPF programs. Part `kernel` does not use it.
const BPF_STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Part that runs only with `--peers` or by its name, because it needs other programs.
const PEERS: Part = ("peers", peers::peers);

fn main() -> ExitCode {
    if !is_root() {
        println!("not run: needs root");
        return ExitCode::SUCCESS;
    }
    // Cargo adds an option of its own.
    let asked: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    if asked == ["child"] {
        std::io::stdin().read_line(&mut String::new()).unwrap();
        work::refused_loop(kernel::ATTEMPTS_ALL);
        return ExitCode::SUCCESS;
    }
    // Without the file it is off.
    if fs::read(BPF_STATS).is_ok_and(|enabled| !enabled.starts_with(b"0")) {
        eprintln!("{BPF_STATS} is not 0: every program would take longer, and be told to");
        return ExitCode::from(2);
    }
    mount_tracefs().expect("a tracefs, for --trace-syscalls");
    let with_peers = asked.iter().any(|it| it == "--peers");
    let named: Vec<_> = asked.iter().filter(|it| *it != "--peers").collect();
    let parts = || PARTS.into_iter().chain([PEERS]);
    if let Some(unknown) = named
        .iter()
        .find(|it| parts().all(|(part, _)| part != it.as_str()))
    {
        let names: Vec<_> = parts().map(|(part, _)| part).collect();
        eprintln!(
            "no part of the bench is called {unknown}: {}",
            names.join(", ")
        );
        return ExitCode::from(2);
    }
    let wanted = |&(part, _): &Part| match part {
        "peers" if with_peers => true,
        "peers" => named.iter().any(|it| *it == part),
        _ => named.is_empty() || named.iter().any(|it| *it == part),
    };
    measure(parts().filter(wanted), named.is_empty());
    ExitCode::SUCCESS
}

/// Measures one part after the other. A whole run writes the figures.
fn measure(parts: impl Iterator<Item = Part>, is_whole: bool) {
    let host = BenchHost::here();
    println!("{}", host.show());
    let mut sections = Vec::new();
    for (_, part) in parts {
        let section = part();
        report::print(&section);
        sections.push(section);
    }
    if is_whole {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        BenchReport { host, sections }.write(&docs);
        println!("\nwritten: docs/performance.svg, docs/performance.json");
    }
}
