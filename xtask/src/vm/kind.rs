//! What a guest is there to show, and what it runs for that.

use clap::ValueEnum;

use super::image::GuestCommand;

/// The program of the tests that says what the verifier does.
pub(crate) const VERIFIER: &str = "verifier";
/// What a guest's start line says.
pub(crate) const COVERAGE: &str = "coverage";
/// Likewise with system calls.
pub(crate) const COVERAGE_SYSCALLS: &str = "coverage-syscalls";

/// Tests that go through the tiers themselves: one guest is enough.
const OF_EVERY_TIER: [&str; 2] = ["tiers", VERIFIER];

/// Tests of no kernel: they read files of the repository, or damage a recording byte by
/// byte, which takes minutes here.
pub(crate) const OF_NO_KERNEL: [&str; 2] = ["any_bytes", "damage"];

/// Tests of what the agent says within milliseconds: an emulated machine is too slow for
/// several of them at once.
const ONE_BY_ONE: [&str; 4] = ["callers", "causes", "causes_calls", "deadlines"];

/// Programs whose IPv4 tests a guest without IPv6 runs.
const V4_PROGRAMS: [&str; 5] = ["refused", "unreachable", "timed_out", "before_syn", "binds"];

/// Kinds of guests: a tier each, or a host that lacks something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GuestKind {
    Full,
    Kprobe,
    Tracepoint,
    NoIpv6,
    LockedDown,
}

impl GuestKind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Kprobe => "kprobe",
            Self::Tracepoint => "tracepoint",
            Self::NoIpv6 => "no-ipv6",
            Self::LockedDown => "locked-down",
        }
    }

    /// For the kernel's command line.
    pub(crate) fn append(self) -> String {
        let list = self.as_str();
        let (tier, more) = match self {
            // To deny connects by: a security module of BPF programs.
            Self::Full | Self::Kprobe | Self::Tracepoint => (list, "lsm=lockdown,bpf"),
            Self::NoIpv6 => ("full", "ipv6.disable=1"),
            Self::LockedDown => ("full", "lsm=lockdown lockdown=confidentiality"),
        };
        format!("list={list} tier={tier} {more}")
    }

    /// What it runs, of these programs of the tests and on its own.
    pub(crate) fn commands(self, programs: &[String]) -> Vec<GuestCommand> {
        let tests = |name: &str, only: &str| {
            let threads = if ONE_BY_ONE.contains(&name) { 1 } else { 4 };
            let options = format!("--test-threads {threads} --color never");
            command(name, &format!("./{name} {options} {only}"))
        };
        let own = ["demo", "doctor"].map(|it| {
            let run = format!("$CONNTRACE_BIN {it} --tier $tier");
            command(&format!("conntrace-{it}"), &run)
        });
        let coverage = command(COVERAGE, &start_line(""));
        let all = || programs.iter().map(|name| tests(name, ""));
        let of_one_tier = || all().filter(|it| !OF_EVERY_TIER.contains(&it.name.as_str()));
        match self {
            Self::Full => all().chain(own).chain([coverage]).collect(),
            Self::Kprobe => of_one_tier().chain(own).chain([coverage]).collect(),
            Self::Tracepoint => {
                let calls = "mount -t tracefs tracefs /sys/kernel/tracing; ";
                let syscalls = format!("{calls}{}", start_line("--trace-syscalls"));
                let syscalls = command(COVERAGE_SYSCALLS, &syscalls);
                of_one_tier()
                    .chain(own)
                    .chain([coverage, syscalls])
                    .collect()
            }
            Self::NoIpv6 => {
                let v4 = V4_PROGRAMS.map(|name| tests(name, "_v4"));
                v4.into_iter().chain(own).chain([coverage]).collect()
            }
            Self::LockedDown => vec![GuestCommand {
                name: self.as_str().to_owned(),
                ..tests("degraded", "locked_down")
            }],
        }
    }
}

fn command(name: &str, command: &str) -> GuestCommand {
    GuestCommand {
        name: name.to_owned(),
        command: command.to_owned(),
    }
}

fn start_line(options: &str) -> String {
    format!("timeout -s INT 5 $CONNTRACE_BIN --tier $tier {options} | head -n 1")
}
