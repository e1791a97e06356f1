//! Program of a guest whose clock counts instructions: prints what conntrace adds to operations.
//!
//! `meter gate BINARY...` measures every state of these builds of conntrace, `meter all` whatever
//! else is known of them too. `meter operation NAME [PID]` is one operation, in a process of its
//! own.

mod accepted;
mod medians;
mod operation;
mod programs;
mod report;
mod running;
mod traced;

use std::{env, path::Path, process::ExitCode, thread, time::Duration};

use anyhow::{Context as _, Result, bail};
use nix::unistd::Pid;

use medians::Medians;
use traced::Traced;

/// State of the agent while operations are measured: its name, tier, and further options.
type State = (&'static str, &'static str, &'static [&'static str]);

const STATES: [State; 5] = [
    ("tracepoint", "tracepoint", &[]),
    ("full", "full", &[]),
    ("kprobe", "kprobe", &[]),
    ("tracepoint-port-1", "tracepoint", &["--port", "1"]),
    ("full-port-1", "full", &["--port", "1"]),
];

/// Pause until the guest has nothing left to do from its start. It takes no time here.
const BOOTED: Duration = Duration::from_secs(30);

/// Number of times that every state is set up. In some, a slow path of the kernel's memory is in
/// every operation of a process, for nothing of ours.
const PASSES: usize = 3;

/// Other program: its name, command line, and parts of the line of a refusal.
type Peer = (
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

const PEERS: [Peer; 2] = [
    ("bpftrace", &["bpftrace", "/guest/state.bt"], &[":9"]),
    ("tcpstates", &["tcpstates"], &["SYN_SENT", "-> CLOSE"]),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match meter(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("meter: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn meter(arguments: &[&str]) -> Result<()> {
    match arguments {
        ["operation", name] => report::answer(operation::median(name, None)?),
        ["operation", name, pid] => {
            let pid = Pid::from_raw(pid.parse()?);
            report::answer(operation::median(name, Some(pid))?);
        }
        ["gate", binaries @ ..] => medians(binaries)?,
        ["all", binaries @ ..] => {
            medians(binaries)?;
            running::untraced()?;
            for (number, binary) in binaries.iter().enumerate() {
                let number = number.to_string();
                memory(&number, binary)?;
                running::agent(&number, binary)?;
                programs::programs(&number, binary)?;
            }
            peers()?;
        }
        _ => bail!("usage: meter gate|all BINARY..."),
    }
    Ok(())
}

/// Measures operations without an agent, and in every state of these builds of it.
fn medians(binaries: &[&str]) -> Result<()> {
    thread::sleep(BOOTED);
    let mut medians = Medians::default();
    for _ in 0..PASSES {
        medians.operations("-", "untraced", None)?;
        for (number, binary) in binaries.iter().enumerate() {
            for state in STATES {
                let number = number.to_string();
                if let Err(error) = stopped(&mut medians, &number, binary, state) {
                    medians.fail(&number, state.0, &error);
                }
            }
        }
    }
    medians.print()
}

/// Measures every operation while the agent is stopped: what is added is the kernel side's.
fn stopped(
    medians: &mut Medians,
    number: &str,
    binary: &str,
    (name, tier, more): State,
) -> Result<()> {
    let traced = Traced::conntrace(binary, tier, "json", more)?;
    traced.freeze()?;
    medians.operations(number, name, None)?;
    traced.end()
}

fn peers() -> Result<()> {
    let mut medians = Medians::default();
    for (name, command, line) in PEERS {
        let measured = Traced::peer(command, line).and_then(|traced| {
            traced.freeze()?;
            medians.operations("-", name, Some(traced.pid))?;
            traced.end()
        });
        if let Err(error) = measured {
            medians.fail("-", name, &error);
        }
    }
    medians.print()
}

/// Prints the memory of the agent once started, in kB.
fn memory(number: &str, binary: &str) -> Result<()> {
    let traced = Traced::conntrace(binary, "full", "json", &[])?;
    let rollup = format!("/proc/{}/smaps_rollup", traced.pid);
    let read = |name| programs::field(Path::new(&rollup), name).context(rollup.clone());
    let private = read("Private_Clean:")? + read("Private_Dirty:")?;
    report::figure("memory", number, &[&read("Pss:")?, &private]);
    traced.end()
}
