//! Guest whose clock counts instructions, in which the meter runs.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    run::{on_path, run, target_dir},
    vm::{
        guest::{self, Accelerator, Guest, GuestRun},
        image::{self, GuestCommand, GuestPrograms},
        kernels::UnpackedKernel,
    },
};

/// Time limit of the guest here, and of its command in its own time, which is slower.
const GUEST_MAX: Duration = Duration::from_secs(3600);
const COMMAND_MAX_SECONDS: u64 = 3600;
/// Name of the command, and of its list.
const COMMAND: &str = "cost";
/// Additions to the kernel's command line: addresses that differ from one process to the next
/// change figures by some instructions.
const SAME_EVERY_TIME: &str = "norandmaps nokaslr";
/// Modules of the guest: the device of the far client.
const MODULES: [&str; 1] = ["tun"];
/// Other programs that are measured, where this machine has them.
const PEERS: [&str; 2] = ["bpftrace", "tcpstates"];
/// Script of bpftrace, from the root of the repository.
const SCRIPT: &str = "tests/benches/cost/state.bt";
/// Lines of the console that are shown if something fails.
const CONSOLE_SHOWN: usize = 40;

/// Lines that the meter printed in a guest of this kernel, for these builds of conntrace. The gate
/// needs only medians of conntrace itself.
pub(super) fn measure(
    root: &Path,
    kernel: &UnpackedKernel,
    binaries: &[PathBuf],
    is_gate: bool,
) -> Result<Vec<String>> {
    let folder = target_dir(root).join("bench-guest");
    fs::create_dir_all(&folder)?;
    let programs = pack(root, &folder, binaries, is_gate)?;
    let modules = image::pack_modules(&folder, kernel, &MODULES)?;
    let initrd = folder.join("initrd");
    guest::join(&[&programs, &modules], &initrd)?;
    let guest = Guest {
        image: &kernel.image,
        initrd: &initrd,
        accelerator: Accelerator::Emulation,
        append: format!("list={COMMAND} {SAME_EVERY_TIME}"),
    };
    let log = folder.join("console.log");
    eprintln!("Some minutes; the guest's console is in {}", log.display());
    lines(guest.run(GUEST_MAX, File::create(&log)?)?)
}

fn pack(root: &Path, folder: &Path, binaries: &[PathBuf], is_gate: bool) -> Result<PathBuf> {
    run(Command::new("cargo")
        .args([
            "build",
            "--release",
            "--locked",
            "--package",
            "conntrace-meter",
        ])
        .current_dir(root))?;
    let meter = target_dir(root).join("release/conntrace-meter");
    let mut own = vec![(meter, "meter".to_owned())];
    let mode = if is_gate { "gate" } else { "all" };
    let mut command = format!("mount -t tracefs tracefs /sys/kernel/tracing; /guest/meter {mode}");
    for (number, binary) in binaries.iter().enumerate() {
        let name = format!("conntrace-{number}");
        command.push_str(&format!(" /guest/{name}"));
        own.push((binary.clone(), name));
    }
    let peers = PEERS.iter().copied();
    let peers = peers.filter(|it| !is_gate && on_path(it).is_some());
    let script = (root.join(SCRIPT), "state.bt".to_owned());
    let command = GuestCommand {
        name: COMMAND.to_owned(),
        command,
    };
    let programs = GuestPrograms {
        system: &peers.collect::<Vec<_>>(),
        own,
        files: vec![script],
        lists: vec![(COMMAND, vec![command])],
        seconds_max: COMMAND_MAX_SECONDS,
    };
    programs.pack(folder)
}

/// Returns what the meter printed, or fails with the end of the console.
fn lines(ran: GuestRun) -> Result<Vec<String>> {
    let mut ended = ran.ended;
    let meter = ended.remove(COMMAND).filter(|it| ran.off && it.status == 0);
    if let Some(meter) = meter {
        return Ok(meter.printed);
    }
    let last = ran.console.len().saturating_sub(CONSOLE_SHOWN);
    for line in ran.console.iter().skip(last) {
        eprintln!("| {line}");
    }
    let began = ran
        .hangs
        .context("the guest did not boot, or its command failed")?;
    bail!("{began} did not end within {} s", GUEST_MAX.as_secs())
}
