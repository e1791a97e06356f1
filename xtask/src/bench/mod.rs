//! `cargo xtask bench`: measures the cost of tracing.
//!
//! With `--guest` in instructions, without noise; else by the clock of this machine, as root.

mod figures;
mod gate;
mod guest;
mod operations;
mod page;
mod table;
mod targets;
mod wall_clock;

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

use crate::{
    run::{run, target_dir},
    vm,
};
use figures::GuestFigures;
pub(crate) use page::check as check_page;

/// Kernel of the committed figures.
const KERNEL: &str = "6.12";
/// Committed figures of the guest, from the root of the repository.
const BASELINE: &str = "docs/instructions.json";

/// Choice of measurements.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// Measure only these parts: loop, kernel, record, load, latency, start, idle, growth,
    /// syscalls, peers. All of them, except peers, take a quarter of an hour and write
    /// docs/performance.md
    #[arg(conflicts_with = "guest")]
    parts: Vec<OsString>,
    /// Also measure bpftrace, libbpf-tools, perf trace and strace, if they are installed
    /// and can attach
    #[arg(long, conflicts_with = "guest")]
    peers: bool,
    /// Only write docs/performance.md again, of the figures that are committed
    #[arg(long, conflicts_with_all = ["guest", "parts", "peers"])]
    page: bool,
    /// Count the instructions that are added, in a virtual machine: exit status 3 if there can
    /// be none. Takes some minutes, and no root
    #[arg(long)]
    guest: bool,
    /// Kernel of the guest: 5.10, 6.1, 6.12, 6.18, 7 (the newest)
    #[arg(long, value_name = "VERSION", default_value = KERNEL, requires = "guest")]
    kernel: String,
    /// Measure this conntrace instead of a fresh release build. Twice: both, in one guest
    #[arg(long = "binary", value_name = "FILE", requires = "guest")]
    binaries: Vec<PathBuf>,
    /// Also measure this conntrace, for comparison
    #[arg(long, value_name = "FILE", requires = "guest")]
    against: Option<PathBuf>,
    /// Fail if a figure is above the committed one, or so far below that it is no longer true
    #[arg(long, requires = "guest")]
    check: bool,
    /// Write docs/instructions.json and docs/performance.md
    #[arg(long, requires = "guest", conflicts_with = "check")]
    write: bool,
}

pub(crate) fn bench(root: &Path, args: &BenchArgs) -> Result<()> {
    if args.guest {
        return count_instructions(root, args);
    }
    if args.page {
        return page::write(root);
    }
    let whole = args.parts.is_empty();
    run(Command::new("cargo")
        .args([
            "bench",
            "--locked",
            "--package",
            "conntrace-tests",
            "--bench",
            "cost",
            "--",
        ])
        .args(&args.parts)
        .args(args.peers.then_some("--peers"))
        .current_dir(root))?;
    // It wrote its figures.
    if whole { page::write(root) } else { Ok(()) }
}

fn count_instructions(root: &Path, args: &BenchArgs) -> Result<()> {
    if (args.check || args.write) && args.kernel != KERNEL {
        bail!(
            "the committed figures are of Linux {KERNEL}, not of {}",
            args.kernel
        );
    }
    let kernel = vm::kernel(root, &args.kernel)?;
    let binaries = binaries(root, args)?;
    let lines = guest::measure(root, &kernel, &binaries, args.check)?;
    let figures = (0..binaries.len())
        .map(|number| GuestFigures::parse(&kernel.release, number, &lines))
        .collect::<Result<Vec<_>>>()?;
    for (number, binary) in binaries.iter().enumerate() {
        eprintln!("{}: {}", number + 1, binary.display());
    }
    table::print(&figures)?;
    let first = figures.first().context("figures of a binary")?;
    if args.write {
        ensure!(
            first.own_not_run().next().is_none(),
            "not written: a state was not measured, see above"
        );
        write_baseline(root, first)?;
        return page::write(root);
    }
    if args.check {
        return gate::check(&read_baseline(root)?, first);
    }
    Ok(())
}

/// Builds of conntrace to measure: those asked for, or a fresh one.
fn binaries(root: &Path, args: &BenchArgs) -> Result<Vec<PathBuf>> {
    let mut binaries = args.binaries.clone();
    if binaries.is_empty() {
        run(Command::new("cargo")
            .args(["build", "--release", "--locked", "--package", "conntrace"])
            .current_dir(root))?;
        binaries.push(target_dir(root).join("release/conntrace"));
    }
    binaries.extend(args.against.clone());
    ensure!(binaries.len() <= 2, "at most two binaries can be compared");
    for binary in &binaries {
        ensure!(binary.is_file(), "no such file: {}", binary.display());
    }
    Ok(binaries)
}

fn read_baseline(root: &Path) -> Result<GuestFigures> {
    let text = fs::read_to_string(root.join(BASELINE)).context(BASELINE)?;
    serde_json::from_str(&text).context(BASELINE)
}

fn write_baseline(root: &Path, figures: &GuestFigures) -> Result<()> {
    let json = serde_json::to_string_pretty(figures)?;
    fs::write(root.join(BASELINE), json + "\n").context(BASELINE)
}
