//! Runs and time of each BPF program of the agent, by the kernel's own accounting.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result};
use aya::programs::loaded_programs;

use crate::{
    operation::{COUNT, WARM_UP, measure},
    report,
    traced::Traced,
};

/// Sysctl of the accounting. It adds its own cost to every run.
const BPF_STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";
const TIERS: [&str; 3] = ["tracepoint", "full", "kprobe"];
const OPERATIONS: [&str; 2] = ["refused", "close"];

/// A program's name, size, and what it has done so far.
#[derive(Clone)]
struct Program {
    name: String,
    /// Instructions that the verifier went through.
    verified: u32,
    /// Bytes of machine code.
    jited: u32,
    runs: u64,
    ns: u64,
}

/// Prints for each tier and operation the runs and instructions of each program that runs.
pub(crate) fn programs(number: &str, binary: &str) -> Result<()> {
    fs::write(BPF_STATS, "1").context(BPF_STATS)?;
    let measured = TIERS.iter().try_for_each(|tier| {
        let traced = Traced::conntrace(binary, tier, "json", &[])?;
        traced.freeze()?;
        for operation in OPERATIONS {
            let before = held_by(traced.pid.as_raw())?;
            measure(operation, None)?;
            let after = held_by(traced.pid.as_raw())?;
            for (id, program) in after {
                let before = before.get(&id).map_or((0, 0), |it| (it.runs, it.ns));
                print(number, tier, operation, &program, before);
            }
        }
        traced.end()
    });
    fs::write(BPF_STATS, "0").context(BPF_STATS)?;
    measured
}

/// Prints what has been added per operation, if the program ran.
fn print(number: &str, tier: &str, operation: &str, program: &Program, before: (u64, u64)) {
    let (runs, ns) = (program.runs - before.0, program.ns - before.1);
    let all = (COUNT + WARM_UP) as f64;
    if (runs as f64) < all / 100.0 {
        return;
    }
    let (runs, ns) = (format!("{:.2}", runs as f64 / all), ns as f64 / all);
    let ns = format!("{ns:.0}");
    let Program {
        name,
        verified,
        jited,
        ..
    } = program;
    let words: [&dyn std::fmt::Display; 7] = [&tier, &operation, name, &runs, &ns, verified, jited];
    report::figure("program", number, &words);
}

/// Programs whose descriptors a process holds, by their numbers.
fn held_by(pid: i32) -> Result<BTreeMap<u64, Program>> {
    let mut programs = BTreeMap::new();
    let mut names = BTreeMap::new();
    for info in loaded_programs() {
        let info = info?;
        let name = info.name_as_str().unwrap_or("?").to_owned();
        let verified = info.verified_instruction_count().unwrap_or(0);
        names.insert(u64::from(info.id()), (name, verified, info.size_jitted()));
    }
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        let path = entry?.path();
        // Links to programs have the number as well, but no run time.
        if let (Some(id), Some(ns), Some(runs)) = (
            field(&path, "prog_id:"),
            field(&path, "run_time_ns:"),
            field(&path, "run_cnt:"),
        ) && let Some((name, verified, jited)) = names.get(&id)
        {
            let program = Program {
                name: name.clone(),
                verified: *verified,
                jited: *jited,
                runs,
                ns,
            };
            programs.insert(id, program);
        }
    }
    Ok(programs)
}

/// Reads the number after this name in a file of /proc.
pub(crate) fn field(path: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}
