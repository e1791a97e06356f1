//! The project's own tasks, one file each: `cargo xtask <task>`.
//!
//! Every command a task runs is printed before it runs, so that each can be
//! repeated by hand.

mod bench;
mod btf;
mod ebpf;
mod fuzz;
mod goldens;
mod lint;
mod million;
mod record;
mod run;
mod setup;
mod test;
mod test_names;
mod toolchain;
mod vm;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(bin_name = "cargo xtask", about, disable_help_subcommand = true)]
struct XtaskCli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what is missing of the eBPF toolchain
    Setup {
        /// Only say what is there, what is missing and what would be run
        #[arg(long)]
        explain: bool,
    },
    /// Build the kernel side into conntrace/bpf/conntrace.bpf.o
    Ebpf {
        /// Change nothing: fail when the committed object is not what the sources give
        #[arg(long)]
        check: bool,
    },
    /// Keep what the tests need to know of a kernel, in conntrace/bpf/btf
    Btf {
        /// Which kernel, and its vmlinuz, its vmlinux or its BTF alone; may be repeated
        #[arg(long = "kernel", value_name = "VERSION=FILE", required = true)]
        kernels: Vec<btf::KernelFile>,
    },
    /// Check formatting, clippy, the lists of unsafe files and test names, dependencies
    Lint {
        /// Fail, instead of saying so, when a cargo-deny check cannot be run
        #[arg(long)]
        deny: bool,
    },
    /// Measure what tracing costs on this machine, as root
    Bench {
        /// Only these parts of the table: loop, kernel, record, load, latency, start, idle,
        /// growth, syscalls, second, peers. All of them (but peers) take a quarter of an hour
        /// and write docs/performance.md
        parts: Vec<OsString>,
        /// Also bpftrace, libbpf-tools, perf trace and strace, where they are installed and
        /// can attach
        #[arg(long)]
        peers: bool,
    },
    /// Try mutated bytes on whatever reads bytes from elsewhere, under libFuzzer
    Fuzz {
        /// Only this target: wire, recording, filter, btf
        target: Option<String>,
        /// How long each target runs
        #[arg(long, value_name = "N", default_value_t = 30)]
        seconds: u32,
    },
    /// Compare what conntrace prints with checksums: schema, help, explanations, replays
    Goldens {
        /// Of this binary instead of a fresh build
        #[arg(long, value_name = "FILE")]
        binary: Option<PathBuf>,
        /// Write the checksums instead
        #[arg(long)]
        update: bool,
    },
    /// Hold a million attempts, drawn at random, against what their applications were
    /// told, as root
    Million {
        /// Draw the same attempts again: as the test prints it
        #[arg(long, value_name = "S")]
        seed: Option<u64>,
        /// How many
        #[arg(long, value_name = "N", default_value_t = 1_000_000)]
        attempts: u32,
    },
    /// Run every test of the workspace; as root this includes the live-kernel tests
    Test {
        /// Passed on to `cargo test`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Fail for a test of tests/golden/test-names.txt that did not run
    TestNames {
        /// What `cargo test --workspace` printed, its errors included
        log: PathBuf,
    },
    /// Run the live tests on other kernels, in virtual machines: exit status 3 where
    /// some could not be run and the others passed
    Vm(vm::VmArgs),
}

/// Exit status of a task that has not failed but could not be run in full.
const NOT_RUN: u8 = 3;

fn main() -> ExitCode {
    match run_task(XtaskCli::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            match error.is::<vm::NotRun>() {
                true => ExitCode::from(NOT_RUN),
                false => ExitCode::FAILURE,
            }
        }
    }
}

fn run_task(task: Task) -> Result<()> {
    let root = run::root()?;
    match task {
        Task::Setup { explain } => setup::setup(explain),
        Task::Ebpf { check: false } => ebpf::build(&root),
        Task::Ebpf { check: true } => ebpf::check(&root),
        Task::Btf { kernels } => btf::btf(&root, &kernels),
        Task::Lint { deny } => lint::lint(&root, deny),
        Task::Bench { parts, peers } => bench::bench(&root, &parts, peers),
        Task::Fuzz { target, seconds } => fuzz::fuzz(&root, target.as_deref(), seconds),
        Task::Goldens { binary, update } => goldens::goldens(&root, binary, update),
        Task::Million { seed, attempts } => million::million(&root, seed, attempts),
        Task::Test { args } => test::test(&root, &args),
        Task::TestNames { log } => test_names::ran(&root, &log),
        Task::Vm(args) => vm::vm(&root, &args),
    }
}
