//! `cargo xtask vm`: the live tests on other kernels, in virtual machines.
//!
//! The programs are those of `cargo test`, with the libraries they need. A guest runs one
//! group of their tests after the other. It has nothing else, and nothing but its console
//! leaves it.

mod docs;
mod guest;
mod image;
mod kernels;
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
use kernels::{Apt, UnpackedKernel};
use kind::{GuestKind, TestGroup};
use matrix::{GuestRow, KernelHost};

/// Programs that this task calls, and the packages that contain them.
const NEEDED: [(&str, &str); 8] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("cpio", "cpio"),
    ("xz", "xz-utils"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("dpkg", "dpkg"),
    ("strip", "binutils"),
];

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
    for (program, package) in NEEDED {
        if on_path(program).is_none() {
            return Err(NotRun(format!("no {program}: apt-get install {package}")).into());
        }
    }
    let folder = target_dir(root).join("vm");
    fs::create_dir_all(folder.join("log"))?;
    let (programs, kinds) = pack(root, &folder, args)?;
    let apt = Apt::update(&folder.join("kernels"));
    let apt = apt.map_err(|error| NotRun(format!("no kernels to be had: {error:#}")))?;
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
    let conntrace = target_dir(root).join("debug/conntrace");
    let packed = image::pack_programs(folder, &conntrace, &programs, &lists)?;
    Ok((packed, lists.into_iter().map(|(kind, _)| kind).collect()))
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
