//! What was typed, and what it means.

use std::{
    io::{self, IsTerminal as _},
    net::SocketAddr,
    num::NonZeroU64,
    ops::RangeInclusive,
    path::PathBuf,
    time::Duration,
};

use clap::{Args, Parser, Subcommand, ValueEnum, builder::PossibleValue};

use crate::{
    filter::{CgroupId, Filter, Name, NetnsInode, Network, Ports},
    kernel::Tier,
    label::Label,
    output::{Formatted, Json, Sink, Text},
    worker::Labelling,
};

/// A year: the clock holds no more than some centuries.
const SUMMARY_MAX: u64 = 365 * 24 * 60 * 60;

/// The largest process id there is (`PID_MAX_LIMIT`).
const PID_MAX: u32 = 1 << 22;

/// The largest user id there is: the next one stands for none.
const UID_MAX: u32 = u32::MAX - 1;

/// Says at once, and with the evidence, why outgoing TCP connections fail.
#[derive(Debug, Parser)]
#[command(name = "conntrace", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; `run` if left out.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Options of `run`.
    #[command(flatten)]
    pub run: RunArgs,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Trace until SIGINT or SIGTERM: a line for every failed connection.
    Run(Box<RunArgs>),
    /// Provoke every kind of ending in a network of its own and trace them.
    Demo(DemoArgs),
    /// Say what this host offers for tracing, what is missing and what would mend it.
    Doctor(DoctorArgs),
    /// Say what a label or cause means, how it is recognised and what to do about it.
    Explain(ExplainArgs),
    /// Make lines of what `run --record` recorded; needs neither root nor that host.
    Replay(ReplayArgs),
    /// Print the JSON Schema of the lines.
    Schema,
}

/// The headings of `run --help`.
const OUTPUT: &str = "Output";
const CAUSES: &str = "Causes";
const TRACING: &str = "Tracing";
const FILTERS: &str = "Filters (repeatable; one of each kind given must fit)";

/// Which lines are written, and how: options of `run` and `replay`.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = OUTPUT)]
pub struct LineArgs {
    /// Also print attempts that were established or cancelled.
    #[arg(long)]
    pub all: bool,
    /// Print outcomes with exactly these labels, whatever --all says; stalls, which
    /// have no label, are printed all the same (see --no-stalls).
    #[arg(
        long = "label",
        value_name = "LABEL",
        value_enum,
        value_delimiter = ','
    )]
    pub only: Vec<Label>,
    /// How lines are written; text on a terminal, else json.
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    /// An attempt closed unanswered after this long timed out; before, it was cancelled.
    #[arg(long, value_name = "MS", default_value_t = 200, allow_negative_numbers = true,
          value_parser = number("milliseconds", 0..=u64::MAX))]
    pub patience: u64,
    /// Print no line at an attempt's first SYN retransmission.
    #[arg(long)]
    pub no_stalls: bool,
    /// Look for no causes and tell of no port pressure; `run` then keeps fewer
    /// capabilities.
    #[arg(long, help_heading = CAUSES)]
    pub no_diagnosis: bool,
    /// Print at most N outcomes a second per process, remote and label; the next
    /// one, and the totals, say how many were left out. Stalls are not counted.
    #[arg(long, value_name = "N", allow_negative_numbers = true,
          value_parser = number("lines", 1..=u64::MAX))]
    pub limit: Option<u64>,
}

/// Options of `run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// Which lines are written, and how.
    #[command(flatten)]
    pub lines: LineArgs,
    /// Which attempts are traced.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Print totals this often; 0 for never.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, allow_negative_numbers = true,
          help_heading = OUTPUT, value_parser = number("seconds", 0..=SUMMARY_MAX))]
    pub summary: u64,
    /// Also trace the system calls connect and bind: shows what fails before a SYN,
    /// such as no route. Slows every system call of this host a little.
    #[arg(long, help_heading = TRACING)]
    pub trace_syscalls: bool,
    /// Also record what lines are made from, for `replay`, to this new file.
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    pub record: Option<PathBuf>,
    /// Say more on stderr; twice: also the kernel side's own debug lines.
    #[arg(short, long, action = clap::ArgAction::Count, help_heading = OUTPUT)]
    pub verbose: u8,
    /// Load this object instead of the built-in one (a fresh build under test).
    #[arg(long, value_name = "FILE", hide = true, help_heading = TRACING)]
    pub object: Option<PathBuf>,
    /// How hooks are chosen.
    #[command(flatten)]
    pub tier: TierArgs,
}

/// How hooks are chosen: an option of `run`, `demo` and `doctor`.
#[derive(Debug, Clone, Args)]
pub struct TierArgs {
    /// Hook functions in this way only, instead of in the best there is (for tests).
    #[arg(long, value_enum, hide = true, help_heading = TRACING)]
    pub tier: Option<Tier>,
}

/// Which attempts are traced: options of `run`. Each can be repeated; within a
/// kind one must fit, and of every kind that is given.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = FILTERS)]
pub struct FilterArgs {
    /// Only attempts of this process (its id in the root pid namespace).
    #[arg(long = "pid", value_name = "PID", allow_negative_numbers = true,
          value_parser = process_id)]
    pub pids: Vec<u32>,
    /// Only of threads or processes with this name (its first 15 bytes).
    #[arg(long = "comm", value_name = "NAME")]
    pub comms: Vec<Name>,
    /// Only of this user id.
    #[arg(long = "uid", value_name = "UID", allow_negative_numbers = true,
          value_parser = user_id)]
    pub uids: Vec<u32>,
    /// Only of this cgroup (v2) and those below it.
    #[arg(long = "cgroup", value_name = "PATH")]
    pub cgroups: Vec<CgroupId>,
    /// Only in this network namespace: its inode number, or a file such as
    /// /run/netns/NAME.
    #[arg(
        long = "netns",
        value_name = "INODE|PATH",
        allow_negative_numbers = true
    )]
    pub netns: Vec<NetnsInode>,
    /// Only to this network or address; bits beyond its prefix are ignored.
    #[arg(long = "to", value_name = "CIDR")]
    pub networks: Vec<Network>,
    /// Only to this port, or to these.
    #[arg(long = "port", value_name = "N[-M]", allow_negative_numbers = true)]
    pub ports: Vec<Ports>,
}

impl FilterArgs {
    /// What they mean.
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
pub struct DoctorArgs {
    /// How it is written: text, or one JSON object.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// How hooks are chosen.
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
    /// Write text for a person to stdout, or the lines as JSON, with the table and the verdict
    /// on stderr.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// How hooks are chosen.
    #[command(flatten)]
    pub tier: TierArgs,
    /// What a scene starts as a process of its own: connects there, and waits for its
    /// input's end.
    #[arg(long, hide = true)]
    pub connects_to: Option<SocketAddr>,
}

/// Takes a number in this range, or says what is wanted.
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

/// A label is typed as the lines have it.
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
    /// What `run --record` wrote.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Which lines are written, and how.
    #[command(flatten)]
    pub lines: LineArgs,
}

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// JSON, an object per line.
    Json,
    /// Aligned text for a person.
    Text,
}

impl Format {
    /// The format asked for, or the one that suits stdout.
    #[must_use]
    pub fn or_suitable(asked: Option<Self>) -> Self {
        asked.unwrap_or_else(|| {
            if io::stdout().is_terminal() {
                Self::Text
            } else {
                Self::Json
            }
        })
    }

    /// Lines of this format to stdout.
    #[must_use]
    pub fn to_stdout(self) -> Box<dyn Sink + Send> {
        match self {
            Self::Json => Box::new(Formatted::new(Json::default(), io::stdout())),
            Self::Text => Box::new(Formatted::new(Text, io::stdout())),
        }
    }
}

impl LineArgs {
    /// How attempts become lines.
    #[must_use]
    pub fn labelling(&self) -> Labelling {
        Labelling {
            patience_ms: self.patience,
            labels: self.labels(),
            stalls: !self.no_stalls,
            limit: self.limit.and_then(NonZeroU64::new),
            causes: !self.no_diagnosis,
        }
    }

    /// The labels whose outcomes are printed.
    #[must_use]
    pub fn labels(&self) -> Vec<Label> {
        if !self.only.is_empty() {
            return self.only.clone();
        }
        let mut labels = Label::ALL.to_vec();
        labels.retain(|label| self.all || !label.is_hidden());
        labels
    }

    /// Where they go.
    #[must_use]
    pub fn to_stdout(&self) -> Box<dyn Sink + Send> {
        Format::or_suitable(self.format).to_stdout()
    }
}

impl RunArgs {
    /// Time between two summaries.
    #[must_use]
    pub fn summary_every(&self) -> Option<Duration> {
        (self.summary > 0).then(|| Duration::from_secs(self.summary))
    }
}

#[cfg(test)]
mod tests;
