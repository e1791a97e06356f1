//! Kinds of guests: their purpose, and the commands that they run.

use clap::ValueEnum;

use super::image::GuestCommand;

/// The group of tests that says what the verifier does.
pub(crate) const VERIFIER: &str = "verifier";
/// Name of the command that prints the start line.
pub(crate) const COVERAGE: &str = "coverage";
/// Name of the command that prints the start line with system calls.
pub(crate) const COVERAGE_SYSCALLS: &str = "coverage-syscalls";

/// Tests that go through the tiers themselves: one guest is enough.
const OF_EVERY_TIER: [&str; 2] = ["tiers", VERIFIER];

/// Tests of no kernel: they read files of the repository, or damage a recording byte by
/// byte, which takes minutes here.
pub(crate) const OF_NO_KERNEL: [&str; 2] = ["any_bytes", "damage"];

/// Tests of what the agent says within milliseconds: an emulated machine is too slow for
/// several of them at once.
const ONE_BY_ONE: [&str; 4] = ["callers", "causes", "causes_calls", "deadlines"];

/// Groups whose IPv4 tests a guest without IPv6 runs.
const V4_GROUPS: [&str; 5] = ["refused", "unreachable", "timed_out", "before_syn", "binds"];

/// A group of tests, and the program that has it.
pub(crate) struct TestGroup {
    pub(crate) program: String,
    pub(crate) name: String,
}

impl TestGroup {
    /// Runs those of its tests that have `only` in their name. The group's own process does
    /// without the one that runs all groups: the console has a test's name before its end.
    fn command(&self, only: &str) -> GuestCommand {
        let Self { program, name } = self;
        let threads = if ONE_BY_ONE.contains(&name.as_str()) {
            1
        } else {
            4
        };
        let options = format!("--test-threads {threads} --color never");
        let run = format!("CONNTRACE_TEST_GROUP={name} ./{program} {options} {only}");
        command(name, &run)
    }
}

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

    /// Returns the additions to the kernel's command line.
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

    /// Commands that it runs: some of these groups of tests, and some of its own.
    pub(crate) fn commands(self, groups: &[TestGroup]) -> Vec<GuestCommand> {
        let some = |names: &[&str], only| {
            let groups = groups.iter().filter(|it| names.contains(&it.name.as_str()));
            let commands = groups.map(|it| it.command(only));
            commands.collect::<Vec<_>>()
        };
        let own = ["demo", "doctor"].map(|it| {
            let run = format!("$CONNTRACE_BIN {it} --tier $tier");
            command(&format!("conntrace-{it}"), &run)
        });
        let coverage = command(COVERAGE, &start_line(""));
        let all = || groups.iter().map(|it| it.command(""));
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
                let v4 = some(&V4_GROUPS, "_v4");
                v4.into_iter().chain(own).chain([coverage]).collect()
            }
            Self::LockedDown => {
                let mut commands = some(&["degraded"], "locked_down");
                for command in &mut commands {
                    self.as_str().clone_into(&mut command.name);
                }
                commands
            }
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
