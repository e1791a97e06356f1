//! Instructions of a refusal while the agent runs: the kernel side, the agent's threads, and both.

use std::{collections::BTreeMap, fs, net::Ipv4Addr, thread, time::Duration};

use anyhow::{Context as _, Result};
use nix::unistd::Pid;

use crate::{
    operation::{enter, instructions, refused_by},
    report,
    traced::{Traced, lines, written},
};

/// Refusals that are measured, and those that go before, so that the cause is known.
const REFUSALS: u32 = 5_000;
const WARM_UP: u32 = 1_000;
/// Tier of these figures.
const TIER: &str = "tracepoint";

/// Format of the lines, and true if every refusal is by another address.
type Case = (&'static str, &'static str, bool);

/// Cases by name. Text folds equal failures, so that one line stands for many.
const CASES: [Case; 4] = [
    ("json", "json", false),
    ("text", "text", false),
    ("json-new", "json", true),
    ("text-new", "text", true),
];
/// Interval between two looks at the output, and number of looks without change that end it.
const POLL: Duration = Duration::from_millis(50);
const UNCHANGED: u32 = 40;

/// Instructions of each thread so far, by its number and name.
type Threads = BTreeMap<(u32, String), u64>;

/// Prints the mean of a refusal without an agent.
pub(crate) fn untraced() -> Result<()> {
    let mean = in_namespace(|| {
        repeated(WARM_UP, false)?;
        repeated(REFUSALS, false)
    })?;
    report::figure("refusal", "-", &[&"untraced", &each(mean), &0]);
    Ok(())
}

/// Prints for each case the mean of a refusal with its line, and each thread's part.
pub(crate) fn agent(number: &str, binary: &str) -> Result<()> {
    for (name, format, is_new) in CASES {
        let traced = Traced::conntrace(binary, TIER, format, &[])?;
        let pid = traced.pid;
        let measured = in_namespace(|| with_agent(pid, is_new))?;
        let total = each(measured.total);
        report::figure("refusal", number, &[&name, &total, &measured.lines]);
        for ((_, thread), took) in measured.threads {
            report::figure("thread", number, &[&name, &thread, &each(took)]);
        }
        traced.end()?;
    }
    Ok(())
}

/// Result of refusals while the agent runs.
struct WithAgent {
    /// Instructions of all, the agent's after the last refusal included.
    total: u64,
    threads: Threads,
    lines: usize,
}

fn with_agent(pid: Pid, is_new: bool) -> Result<WithAgent> {
    repeated(WARM_UP, false)?;
    wait_until_written()?;
    let (lines_before, before) = (lines()?, threads(pid)?);
    let took = repeated(REFUSALS, is_new)?;
    let meanwhile = threads(pid)?;
    wait_until_written()?;
    let after = threads(pid)?;
    // The only processor is never idle before the last refusal: the agent has its share of the
    // time. What it does later comes on top.
    let later: u64 = since(&meanwhile, &after).values().sum();
    Ok(WithAgent {
        total: took + later,
        threads: since(&before, &after),
        lines: lines()? - lines_before,
    })
}

fn each(all: u64) -> u64 {
    all / u64::from(REFUSALS)
}

/// Runs it in a thread that has a new network namespace.
fn in_namespace<T: Send>(act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter()?;
            act()
        });
        let panicked = |_| anyhow::anyhow!("a thread of the meter panicked");
        thread.join().map_err(panicked)?
    })
}

/// Returns the instructions of this many refusals, each by another address or all by one.
fn repeated(count: u32, is_new: bool) -> Result<u64> {
    let began = instructions()?;
    for number in 0..count {
        let host = if is_new { 0x1_0000 + number } else { 1 };
        // All of 127.0.0.0/8 is this host.
        refused_by(Ipv4Addr::from_bits(0x7f00_0000 + host))?;
    }
    Ok(u64::try_from((instructions()? - began).as_nanos())?)
}

fn wait_until_written() -> Result<()> {
    let (mut unchanged, mut before) = (0, written()?);
    while unchanged < UNCHANGED {
        thread::sleep(POLL);
        let now = written()?;
        unchanged = if now == before { unchanged + 1 } else { 0 };
        before = now;
    }
    Ok(())
}

fn threads(pid: Pid) -> Result<Threads> {
    let mut threads = Threads::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?;
        let tid = task.file_name().to_string_lossy().parse()?;
        let name = fs::read_to_string(task.path().join("comm"))?;
        let schedstat = fs::read_to_string(task.path().join("schedstat"))?;
        let took = schedstat.split(' ').next().context("schedstat")?;
        threads.insert((tid, name.trim().to_owned()), took.parse()?);
    }
    Ok(threads)
}

fn since(before: &Threads, after: &Threads) -> Threads {
    let grown = |(thread, took): (&(u32, String), &u64)| {
        let before = before.get(thread).copied().unwrap_or(0);
        (thread.clone(), took.saturating_sub(before))
    };
    after.iter().map(grown).collect()
}
