//! Tasks of the project, one file each: `cargo xtask <task>`.
//!
//! Every command is printed before it runs, so that it can be repeated by hand.

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
mod shape;
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
    /// Install the missing parts of the eBPF toolchain
    Setup {
        /// Only report found and missing parts, and the commands that would run
        #[arg(long)]
        explain: bool,
    },
    /// Build the kernel side into conntrace/bpf/conntrace.bpf.o
    Ebpf {
        /// Change nothing: fail if the committed object does not match the sources
        #[arg(long)]
        check: bool,
    },
    /// Extract the BTF of a kernel that the tests need, into conntrace/bpf/btf
    Btf {
        /// Version of the kernel, and its vmlinuz, its vmlinux or its BTF alone; may be repeated
        #[arg(long = "kernel", value_name = "VERSION=FILE", required = true)]
        kernels: Vec<btf::KernelFile>,
    },
    /// Check formatting, clippy, unsafe files, test names, documents and dependencies
    Lint {
        /// Fail, instead of only warning, if a cargo-deny check cannot run
        #[arg(long)]
        deny: bool,
    },
    /// Measure the cost of tracing: on this machine, as root, or with `--guest` in instructions
    Bench(bench::BenchArgs),
    /// Pass mutated bytes to every parser, under libFuzzer
    Fuzz {
        /// Run only this target: wire, recording, filter or btf
        target: Option<String>,
        /// Run time of each target in seconds
        #[arg(long, value_name = "N", default_value_t = 30)]
        seconds: u32,
    },
    /// Compare the output of conntrace with checksums: schema, help, explanations, replays
    Goldens {
        /// Run this binary instead of a fresh build
        #[arg(long, value_name = "FILE")]
        binary: Option<PathBuf>,
        /// Write the checksums instead
        #[arg(long)]
        update: bool,
        /// Record what is replayed anew before that, as root
        #[arg(long, requires = "update")]
        record: bool,
    },
    /// Compare a million random attempts with the results of their applications, as root
    Million {
        /// Seed of an earlier run, as the test printed it, to repeat the same attempts
        #[arg(long, value_name = "S")]
        seed: Option<u64>,
        /// Number of attempts
        #[arg(long, value_name = "N", default_value_t = 1_000_000)]
        attempts: u32,
    },
    /// Print sizes and shape of the code and its documents
    Shape,
    /// Run every test of the workspace; as root this includes the live-kernel tests
    Test {
        /// Arguments for `cargo test`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Fail for a test of tests/golden/test-names.txt that did not run
    TestNames {
        /// Output of `cargo test --workspace`, stderr included
        log: PathBuf,
    },
    /// Run the live tests on other kernels, in virtual machines: exit status 3 if some could
    /// not run and the others passed
    Vm(vm::VmArgs),
}

/// Exit status of a task that did not fail but could not run in full.
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
        Task::Bench(args) => bench::bench(&root, &args),
        Task::Fuzz { target, seconds } => fuzz::fuzz(&root, target.as_deref(), seconds),
        Task::Goldens {
            binary,
            update,
            record,
        } => {
            if record {
                goldens::record(&root)?;
            }
            goldens::goldens(&root, binary, update)
        }
        Task::Million { seed, attempts } => million::million(&root, seed, attempts),
        Task::Shape => shape::shape(&root),
        Task::Test { args } => test::test(&root, &args),
        Task::TestNames { log } => test_names::ran(&root, &log),
        Task::Vm(args) => vm::vm(&root, &args),
    }
}
