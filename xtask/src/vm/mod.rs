//! `cargo xtask vm`: the live tests on other kernels, in virtual machines.
//!
//! The programs are those of `cargo test`, with the libraries they need. A guest runs one
//! group of their tests after the other. It has nothing else, and nothing but its console
//! leaves it.

mod docs;
pub(crate) mod guest;
pub(crate) mod image;
pub(crate) mod kernels;
mod kind;
mod matrix;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum as _};

use crate::{
    run::{on_path, run, target_dir},
    test::{self, TestProgram},
};
use image::GuestPrograms;
use kernels::{Apt, UnpackedKernel};
use kind::{GuestKind, TestGroup};
use matrix::{GuestRow, KernelHost};

/// Programs that every guest needs on this machine, and the packages that contain them.
const NEEDED: [(&str, &str); 6] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("cpio", "cpio"),
    ("xz", "xz-utils"),
    ("dpkg", "dpkg"),
    ("strip", "binutils"),
];
/// Programs that the tests need as well.
const NEEDED_BY_TESTS: [(&str, &str); 2] = [("ip", "iproute2"), ("nft", "nftables")];

/// Time limit of each command in a guest, in seconds.
const PROGRAM_MAX_SECONDS: u64 = 400;

/// Choice of guests, and the commands that they run.
#[derive(Debug, Args)]
pub(crate) struct VmArgs {
    /// Only this kernel: 5.10, 6.1, 6.12, 6.18, 7 (the newest). Can be repeated
    #[arg(long = "kernel", value_name = "VERSION")]
    kernels: Vec<String>,
    /// Only this tier, or a guest without IPv6 or locked down. Can be repeated
    #[arg(long = "tier", value_enum)]
    kinds: Vec<GuestKind>,
    /// Only what the verifier says of each program
    #[arg(long, conflicts_with = "groups")]
    verifier: bool,
    /// Write what was measured into the docs
    #[arg(long)]
    write: bool,
    /// Only these groups of tests (also: conntrace-demo, conntrace-doctor), instead of all
    #[arg(value_name = "GROUP")]
    groups: Vec<String>,
}

/// The matrix, or a part of it, could not be run; what could has passed.
#[derive(Debug)]
pub(crate) struct NotRun(pub(crate) String);

impl std::fmt::Display for NotRun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NOT RUN: {}", self.0)
    }
}

impl std::error::Error for NotRun {}

pub(crate) fn vm(root: &Path, args: &VmArgs) -> Result<()> {
    check_needed(&NEEDED)?;
    check_needed(&NEEDED_BY_TESTS)?;
    let folder = target_dir(root).join("vm");
    fs::create_dir_all(folder.join("log"))?;
    let (programs, kinds) = pack(root, &folder, args)?;
    let apt = apt(root)?;
    let asked: Vec<_> = match args.kernels.as_slice() {
        [] => kernels::versions().map(str::to_owned).collect(),
        some => some.to_vec(),
    };
    let mut rows = Vec::new();
    let mut hosts = Vec::new();
    for version in &asked {
        match UnpackedKernel::fetch(version, &apt) {
            Ok(kernel) => hosts.push(KernelHost::new(&folder, &programs, kernel)?),
            Err(error) => rows.push(GuestRow::not_run(version, &error)),
        }
    }
    rows.extend(matrix::run(&hosts, &kinds, &folder.join("log"))?);
    if args.write {
        docs::write(root, &rows, args.verifier)?;
    }
    matrix::conclude(&rows)
}

/// Fetches a kernel for a guest.
pub(crate) fn kernel(root: &Path, version: &str) -> Result<UnpackedKernel> {
    check_needed(&NEEDED)?;
    let kernel = UnpackedKernel::fetch(version, &apt(root)?);
    kernel.map_err(|error| NotRun(format!("Linux {version}: {error:#}")).into())
}

fn check_needed(programs: &[(&str, &str)]) -> Result<()> {
    for (program, package) in programs {
        if on_path(program).is_none() {
            return Err(NotRun(format!("no {program}: apt-get install {package}")).into());
        }
    }
    Ok(())
}

fn apt(root: &Path) -> Result<Apt> {
    let apt = Apt::update(&target_dir(root).join("vm/kernels"));
    apt.map_err(|error| NotRun(format!("no kernels to be had: {error:#}")).into())
}

/// Builds what the guests run, as `cargo test` does. Returns their archive, and the
/// kinds of guests that have something to run.
fn pack(root: &Path, folder: &Path, args: &VmArgs) -> Result<(PathBuf, Vec<GuestKind>)> {
    let mut programs = test::programs(root)?;
    programs.retain(|it| it.is_integration);
    let groups = groups(&programs)?;
    let wanted = |name: &str| match (args.verifier, args.groups.as_slice()) {
        (true, _) => name == kind::VERIFIER,
        (false, []) => true,
        // One table has both.
        (false, some) if name == kind::COVERAGE_SYSCALLS => {
            some.iter().any(|it| it == name || it == kind::COVERAGE)
        }
        (false, some) => some.iter().any(|it| it == name),
    };
    let asked = match args.kinds.as_slice() {
        [] => GuestKind::value_variants(),
        some => some,
    };
    let mut lists = Vec::new();
    for kind in asked {
        let mut commands = kind.commands(&groups);
        commands.retain(|command| wanted(&command.name));
        if !commands.is_empty() {
            lists.push((*kind, commands));
        }
    }
    if lists.is_empty() {
        bail!("no such group: {}", args.groups.join(" "));
    }
    run(Command::new("cargo")
        .args(["build", "--package", "conntrace"])
        .current_dir(root))?;
    let of_guest = |it: &TestProgram| (it.path.clone(), format!("programs/{}", it.name));
    let conntrace = target_dir(root).join("debug/conntrace");
    let own = programs
        .iter()
        .map(of_guest)
        .chain([(conntrace, "conntrace".to_owned())]);
    let kinds = lists.iter().map(|(kind, _)| *kind).collect();
    let lists = lists.into_iter().map(|(kind, list)| (kind.as_str(), list));
    let packed = GuestPrograms {
        system: &image::TEST_PROGRAMS,
        own: own.collect(),
        files: Vec::new(),
        lists: lists.collect(),
        seconds_max: PROGRAM_MAX_SECONDS,
    };
    Ok((packed.pack(folder)?, kinds))
}

/// The groups whose tests are of the kernel, in the order in which they run.
fn groups(programs: &[TestProgram]) -> Result<Vec<TestGroup>> {
    let mut groups: Vec<TestGroup> = Vec::new();
    for program in programs {
        for test in program.tests()? {
            let name = test.split("::").next().unwrap_or_default();
            let is_new = groups.last().is_none_or(|last| last.name != name);
            if is_new && !kind::OF_NO_KERNEL.contains(&name) {
                groups.push(TestGroup {
                    program: program.name.clone(),
                    name: name.to_owned(),
                });
            }
        }
    }
    Ok(groups)
}
