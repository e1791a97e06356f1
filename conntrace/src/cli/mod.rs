//! Command line of conntrace.

mod environment;

use std::{net::SocketAddr, num::NonZeroU64, ops::RangeInclusive, path::PathBuf, time::Duration};

use clap::{
    Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum,
    builder::PossibleValue,
};

use crate::{
    capture::{
        Tier,
        filter::{CgroupId, Filter, NetnsInode, Network, PortRange, TaskName},
    },
    commands::doctor,
    output::{self, FormatArg, Json, Text},
    pipeline::Labelling,
    record::Label,
};

/// Maximum seconds between two summaries: a year, which the clock can hold.
const SUMMARY_MAX: u64 = 365 * 24 * 60 * 60;

/// Maximum milliseconds that a line waits for its cause: a minute.
const TIMEOUT_MAX: u64 = 60 * 1000;

/// Largest process id (`PID_MAX_LIMIT`).
const PID_MAX: u32 = 1 << 22;

/// Largest user id: the value above it stands for none.
const UID_MAX: u32 = u32::MAX - 1;

/// Trace failed outgoing TCP connections and explain why.
#[derive(Debug, Parser)]
#[command(
    name = "conntrace",
    version,
    args_conflicts_with_subcommands = true,
    after_help = AFTER_HELP
)]
pub struct Cli {
    /// Command to run; `run` if left out.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Options of `run`, if no command is named.
    #[command(flatten)]
    pub run: RunArgs,
}

impl Cli {
    /// Parses the command line and, for `run`, environment variables. Ends the process after an
    /// error, or when help was asked for.
    #[must_use]
    pub fn read() -> Self {
        let typed = Self::command().get_matches();
        let command = match typed.subcommand_name() {
            None => Some(environment::named(Self::command())),
            Some("run") => Some(Self::command().mut_subcommand("run", environment::named)),
            Some(_) => None,
        };
        let matches = match command {
            None => typed,
            Some(command) => command
                .try_get_matches()
                .unwrap_or_else(|error| environment::refuse(&error)),
        };
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }
}

/// Commands of conntrace.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Trace until SIGINT or SIGTERM, and print a line per failed connection (the default).
    Run(Box<RunArgs>),
    /// Provoke every kind of failure in temporary network namespaces, trace and explain it.
    Demo(DemoArgs),
    /// Check tracing support; report what is missing and how to enable it.
    Doctor(DoctorArgs),
    /// Explain a label, a cause, an errno or an error message, and what to do about it.
    Explain(ExplainArgs),
    /// Print the lines of a recording made by `run --record`; needs no root.
    Replay(ReplayArgs),
    /// Print the JSON Schema of the lines.
    Schema,
}

/// Text below the options in `--help`.
const AFTER_HELP: &str = "\
Examples:
  conntrace                                     every failure, until Ctrl-C
  conntrace --to 10.0.0.0/8 --port 5432         failed connections to these databases
  conntrace --comm nginx --label refused        what nginx is refused
  conntrace | jq -r '.message // empty'         one sentence per failure
  conntrace --record now.rec                    also record, for `conntrace replay now.rec`
  conntrace explain ECONNREFUSED                what it means and what to do

Each long option of `run` is also an environment variable: CONNTRACE_LIMIT=10, CONNTRACE_ALL=1.

Exit status:
  0  clean stop, also when stdout is closed
  1  runtime failure
  2  wrong usage
  3  missing privilege: run as root, or grant CAP_BPF and CAP_PERFMON
  4  the kernel cannot support tracing: `conntrace doctor` says why";

/// Headings in `run --help`.
const OUTPUT: &str = "Output";
const CAUSES: &str = "Causes";
const TRACING: &str = "Tracing";
const FILTERS: &str = "Filters (repeatable; one of each kind given must match)";

/// Options of `run` and `replay` that select and format lines.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = OUTPUT)]
pub struct LineArgs {
    /// Also print established and cancelled attempts.
    #[arg(long)]
    pub all: bool,
    /// Print only outcomes with these labels, regardless of --all. Stalls have no label (see
    /// --no-stalls).
    #[arg(
        long = "label",
        value_name = "LABEL",
        value_enum,
        value_delimiter = ','
    )]
    pub only: Vec<Label>,
    /// Output format; text on a terminal, otherwise json.
    #[arg(long, value_enum)]
    pub format: Option<FormatArg>,
    /// Unanswered attempts closed after MS are `timed_out`, earlier ones `cancelled`.
    #[arg(long, value_name = "MS", default_value_t = 200, allow_negative_numbers = true,
          value_parser = number("milliseconds", 0..=u64::MAX))]
    pub patience: u64,
    /// Do not print the first SYN retransmission of an attempt.
    #[arg(long)]
    pub no_stalls: bool,
    /// Do not search for causes or report port pressure; `run` then keeps fewer capabilities.
    #[arg(long, help_heading = CAUSES)]
    pub no_diagnosis: bool,
    /// Print at most N lines a second per cgroup, thread name, remote and label, including stalls.
    /// `suppressed` in the next line and in the totals counts the others. 0 for no limit.
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true,
          value_parser = number("lines", 0..=u64::MAX))]
    pub limit: u64,
}

/// Options of `run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// Options that select and format lines.
    #[command(flatten)]
    pub lines: LineArgs,
    /// Filters for attempts.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Print totals every SECONDS; 0 turns them off.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, allow_negative_numbers = true,
          help_heading = OUTPUT, value_parser = number("seconds", 0..=SUMMARY_MAX))]
    pub summary: u64,
    /// Write a line without its cause or executable after MS, if they are not found by then.
    #[arg(long, value_name = "MS", default_value_t = 1000, allow_negative_numbers = true,
          help_heading = CAUSES, value_parser = number("milliseconds", 0..=TIMEOUT_MAX))]
    pub diagnosis_timeout: u64,
    /// Also trace the system calls connect and bind. Where functions cannot be hooked, only they
    /// show failures before a SYN, such as no route. Slows every system call of this host slightly.
    #[arg(long, help_heading = TRACING)]
    pub trace_syscalls: bool,
    /// Record the data behind the lines to a new file, for `replay`.
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    pub record: Option<PathBuf>,
    /// Append the lines to this file instead of stdout; a new file has mode 0640. SIGHUP reopens it
    /// after a rotation. Symbolic links are not followed.
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    pub output: Option<PathBuf>,
    /// Log more to stderr; given twice, also debug messages of the eBPF programs.
    #[arg(short, long, action = clap::ArgAction::Count, help_heading = OUTPUT)]
    pub verbose: u8,
    /// Load this object instead of the built-in one (a fresh build under test).
    #[arg(long, value_name = "FILE", hide = true, help_heading = TRACING)]
    pub object: Option<PathBuf>,
    /// Options for the kind of hooks.
    #[command(flatten)]
    pub tier: TierArgs,
}

/// Hidden options for the kind of hooks: of `run`, `demo` and `doctor`.
#[derive(Debug, Clone, Args)]
pub struct TierArgs {
    /// Use only this kind of hooks instead of the best available (for tests).
    #[arg(long, value_enum, hide = true, help_heading = TRACING)]
    pub tier: Option<Tier>,
}

/// Filters of `run`. Each can be repeated: one value of each given kind must match.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = FILTERS)]
pub struct FilterArgs {
    /// Only attempts of this process, by its id in the root pid namespace.
    #[arg(long = "pid", value_name = "PID", value_delimiter = ',', allow_negative_numbers = true,
          value_parser = process_id)]
    pub pids: Vec<u32>,
    /// Only attempts of threads or processes with this name; 15 bytes are compared.
    #[arg(long = "comm", value_name = "NAME")]
    pub comms: Vec<TaskName>,
    /// Only attempts of this user id.
    #[arg(long = "uid", value_name = "UID", value_delimiter = ',', allow_negative_numbers = true,
          value_parser = user_id)]
    pub uids: Vec<u32>,
    /// Only attempts of this cgroup (v2) and its descendants.
    #[arg(long = "cgroup", value_name = "PATH")]
    pub cgroups: Vec<CgroupId>,
    /// Only attempts in this network namespace: its inode number, or a file such as
    /// /run/netns/NAME.
    #[arg(
        long = "netns",
        value_name = "INODE|PATH",
        allow_negative_numbers = true
    )]
    pub netns: Vec<NetnsInode>,
    /// Only attempts to this address or network; bits beyond its prefix are ignored.
    #[arg(long = "to", value_name = "CIDR", value_delimiter = ',')]
    pub networks: Vec<Network>,
    /// Only attempts to this port or range of ports.
    #[arg(
        long = "port",
        value_name = "N[-M]",
        value_delimiter = ',',
        allow_negative_numbers = true
    )]
    pub ports: Vec<PortRange>,
}

impl FilterArgs {
    /// Builds the filter from the options.
    #[must_use]
    pub fn filter(&self) -> Filter {
        let args = self.clone();
        Filter {
            pids: args.pids,
            comms: args.comms,
            uids: args.uids,
            cgroups: args.cgroups,
            netns: args.netns,
            networks: args.networks,
            ports: args.ports,
        }
    }
}

/// Options of `doctor`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = doctor::kernels())]
pub struct DoctorArgs {
    /// Output format: text of one screen, or one JSON object with all findings.
    #[arg(long, value_enum, default_value_t = FormatArg::Text)]
    pub format: FormatArg,
    /// Options for the kind of hooks.
    #[command(flatten)]
    pub tier: TierArgs,
}

/// Arguments of `explain`.
#[derive(Debug, Clone, Args)]
pub struct ExplainArgs {
    /// Label, cause, errno or error message, such as `timed_out`, `ECONNREFUSED` or `no route
    /// to host`; without it, a table of all labels and causes.
    #[arg(value_name = "WORDS")]
    pub words: Vec<String>,
}

/// Options of `demo`.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// Print text for a person to stdout, or JSON lines with the report on stderr.
    #[arg(long, value_enum, default_value_t = FormatArg::Text)]
    pub format: FormatArg,
    /// Options for the kind of hooks.
    #[command(flatten)]
    pub tier: TierArgs,
    /// Connects to this address and waits for the end of stdin (started by scenes).
    #[arg(long, hide = true)]
    pub connects_to: Option<SocketAddr>,
}

/// Builds a parser for numbers in this range.
fn number(
    of: &'static str,
    range: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<u64, String> + Clone {
    move |typed| {
        let number = typed.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| {
            let mut wanted = format!("it must be a whole number of {of}");
            if *range.start() > 0 {
                wanted.push_str(&format!(", at least {}", range.start()));
            }
            if *range.end() < u64::MAX {
                wanted.push_str(&format!(", at most {}", range.end()));
            }
            wanted
        })
    }
}

fn process_id(typed: &str) -> Result<u32, String> {
    id(typed, 1..=PID_MAX)
        .ok_or_else(|| format!("a process id is a whole number from 1 to {PID_MAX}"))
}

fn user_id(typed: &str) -> Result<u32, String> {
    id(typed, 0..=UID_MAX).ok_or_else(|| {
        format!("a user id is a whole number from 0 to {UID_MAX}; `id -u NAME` prints a user's")
    })
}

fn id(typed: &str, range: RangeInclusive<u32>) -> Option<u32> {
    typed.parse().ok().filter(|id| range.contains(id))
}

/// Labels are typed as they appear in the lines.
impl ValueEnum for Label {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.as_str()))
    }
}

/// Arguments of `replay`.
#[derive(Debug, Clone, Args)]
pub struct ReplayArgs {
    /// Recording made by `run --record`.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Options that select and format lines.
    #[command(flatten)]
    pub lines: LineArgs,
}

impl LineArgs {
    /// Builds the worker's settings from the options.
    #[must_use]
    pub fn labelling(&self) -> Labelling {
        Labelling {
            patience_ms: self.patience,
            labels: self.labels(),
            stalls: !self.no_stalls,
            limit: NonZeroU64::new(self.limit),
            causes: !self.no_diagnosis,
            explained: self.only.is_empty(),
            taken_ports: self.all || !self.only.is_empty(),
        }
    }

    /// Returns the labels whose outcomes are printed.
    #[must_use]
    pub fn labels(&self) -> Vec<Label> {
        if !self.only.is_empty() {
            return self.only.clone();
        }
        let mut labels = Label::ALL.to_vec();
        labels.retain(|label| self.all || !label.is_hidden());
        labels
    }

    /// Returns the renderer of the requested format, or of the one that suits stdout.
    #[must_use]
    pub fn renderer(&self) -> Box<dyn output::Format> {
        FormatArg::or_suitable(self.format).renderer()
    }
}

impl RunArgs {
    /// Returns the renderer of the lines: JSON into a file, unless text is requested.
    #[must_use]
    pub fn renderer(&self) -> Box<dyn output::Format> {
        match (&self.output, self.lines.format) {
            (None, _) => self.lines.renderer(),
            (Some(_), None | Some(FormatArg::Json)) => Box::new(Json::default()),
            // A file has no width, unlike the terminal.
            (Some(_), Some(FormatArg::Text)) => Box::new(Text::default()),
        }
    }

    /// Returns the time between two summaries; `None` for none.
    #[must_use]
    pub fn summary_every(&self) -> Option<Duration> {
        (self.summary > 0).then(|| Duration::from_secs(self.summary))
    }
}

#[cfg(test)]
mod tests;
