//! Lines as serialised, and their JSON Schema. Recordings have types of their own.

mod attempt;
mod attempt_line;
mod port_pressure;
mod totals;

use std::{
    borrow::Cow,
    fmt::{self, Display, Formatter},
    net::IpAddr,
    sync::Arc,
};

use jiff::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings, json_schema};
use serde::{Deserialize, Serialize, Serializer};

pub use attempt::{
    Container, Details, Outcome, Owner, Process, RemoteEnd, Runtime, Stall, Subject, Syn,
};
pub(crate) use attempt_line::{AttemptId, OwnNumbers, SharedFacts};
pub use attempt_line::{AttemptLine, outcome, stall};
pub use port_pressure::{PortPressure, PortUse, States, port_pressure};
pub use totals::{Loss, Lost, Stop, TableLoss, Top, TopHolder, Totals, Undelivered};

/// Version of the lines, raised when a field is removed or changes meaning, but not when one is
/// added.
pub const SCHEMA: u32 = 1;

/// Maximum length of a line in bytes, newline included: rsyslog keeps it by default, with a header.
pub const LINE_LEN_MAX: usize = 7900;

/// Maximum bytes of a task's name in a line: 16 characters of at most 6 bytes when escaped.
pub(crate) const COMM_JSON_MAX: usize = 96;

/// Maximum bytes of a path in a line.
pub(crate) const PATH_JSON_MAX: usize = 640;

/// Maximum bytes of a host's name in a line: 64 characters (`__NEW_UTS_LEN`) of at most 6 bytes
/// when escaped.
pub(crate) const HOST_JSON_MAX: usize = 384;

/// Maximum bytes of a DNS name, or of a container's name, in a line.
pub(crate) const NAME_JSON_MAX: usize = 256;

/// Maximum bytes of the reason for a missing hook in a line.
pub(crate) const REASON_JSON_MAX: usize = 256;

/// Line of the output; its fields are written in this order.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Line {
    /// Time at which the kernel saw the event, UTC.
    pub time: Time,
    /// Name of this host (`uname -n`).
    pub hostname: Arc<str>,
    /// Content, by its `type`.
    #[serde(flatten)]
    pub event: Event,
    /// Version of the lines, raised when a field is removed or changes meaning.
    pub schema: u32,
}

impl Line {
    /// Creates a line of the current version.
    #[must_use]
    pub fn new(event: Event, time: Timestamp, hostname: &Arc<str>) -> Self {
        Self {
            time: Time(time),
            hostname: Arc::clone(hostname),
            event,
            schema: SCHEMA,
        }
    }
}

/// Time in RFC 3339, UTC, with nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(pub Timestamp);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:.9}", self.0))
    }
}

impl JsonSchema for Time {
    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date-time" })
    }
}

/// Content of a line, by its `type`.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// Tracing has started.
    Start(Start),
    /// A connection attempt has ended.
    Outcome(Box<Outcome>),
    /// First SYN retransmission of an attempt that continues.
    Stall(Box<Stall>),
    /// Connections to one destination use up the local ports, or no longer do.
    PortPressure(Box<PortPressure>),
    /// Attempts without an outcome, or lines that were not written.
    Loss(Loss),
    /// Totals since the start.
    Summary(Totals),
    /// Tracing has ended; the last line.
    Stop(Stop),
}

/// Start of tracing: the hooks in use, and their coverage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Start {
    /// Version of conntrace.
    pub version: Cow<'static, str>,
    /// Id of this boot (`/proc/sys/kernel/random/boot_id`); null if it cannot be read. An
    /// `attempt_id` is unique within it.
    pub boot_id: Option<String>,
    /// Release of the kernel (`uname -r`).
    pub kernel: String,
    /// Kind of hooks in use: `full`, `kprobe` or `tracepoint`.
    pub tier: Cow<'static, str>,
    /// Process id of conntrace.
    pub pid: u32,
    /// Hooks that were tried, attached or not.
    pub hooks: Vec<HookState>,
    /// Kinds of endings that these hooks see.
    pub coverage: Coverage,
    /// Facts about processes and containers that stay unknown where conntrace runs; empty if there
    /// are none.
    pub limits: Vec<HostLimit>,
}

/// Limit of the place where conntrace runs, as `conntrace doctor` reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostLimit {
    /// Name of the check, such as `pid_namespace`.
    pub name: Cow<'static, str>,
    /// Fact found on the host.
    pub found: String,
    /// Effect on the lines.
    pub cost: Cow<'static, str>,
    /// Remedy.
    pub remedy: Cow<'static, str>,
}

impl Display for HostLimit {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            found,
            cost,
            remedy,
        } = self;
        write!(f, "{name}: {found}; {cost}; remedy: {remedy}")
    }
}

/// State of one hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HookState {
    /// Name of the BPF program.
    pub name: Cow<'static, str>,
    /// Type of the attachment, such as `fentry`, `kprobe` or `tp_btf`.
    pub kind: Cow<'static, str>,
    /// True if the program is attached.
    pub attached: bool,
    /// Reason why the program is not attached; null if it is.
    pub reason: Option<String>,
}

/// Kinds of endings and replies that the attached hooks see.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Coverage {
    /// Completed handshakes are seen.
    pub established: bool,
    /// Refusals by RST are seen.
    pub rst: bool,
    /// Timeouts by the kernel are seen.
    pub kernel_timeout: bool,
    /// Attempts that the application gave up are seen.
    pub app_timeout: bool,
    /// Attempts without a free local port are seen.
    pub port_exhausted: bool,
    /// Attempts whose chosen 4-tuple is in use are seen.
    pub tuple_in_use: bool,
    /// Sockets killed by another process (`ss -K`) are seen.
    pub aborted: bool,
    /// SYN retransmissions are seen.
    pub stall: bool,
    /// ICMPv4 errors are seen with type, code and sender.
    pub icmp: bool,
    /// Packets of an attempt that this host dropped are seen (from Linux 5.17).
    pub local_drop: bool,
    /// Packets of an attempt that were dropped elsewhere on this machine, such as in a container's or
    /// the node's network namespace, are seen (from Linux 5.17).
    pub drops_elsewhere: bool,
    /// Translations of the destination by this machine are seen where a packet of the attempt was dropped
    /// or met no socket (from Linux 5.17).
    pub translations: bool,
    /// ICMPv6 errors are seen with type, code and sender.
    pub icmp6_detail: bool,
    /// Attempts without a route are seen.
    pub no_route: bool,
    /// Attempts that a policy of this host denies are seen.
    pub local_denial: bool,
    /// Calls of bind with port 0 that find no free port are seen.
    pub bind_exhausted: bool,
}

/// Address and port of one side of a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, JsonSchema)]
pub struct Endpoint {
    /// IP address; null if unknown. An IPv4-mapped IPv6 address is written as IPv4.
    pub addr: Option<IpAddr>,
    /// TCP port; null if unknown or not assigned.
    pub port: Option<u16>,
}

/// Returns the JSON Schema (2020-12) of the lines.
#[must_use]
pub fn json_schema() -> Schema {
    SchemaSettings::draft2020_12()
        .for_serialize()
        .into_generator()
        .into_root_schema_for::<Line>()
}

#[cfg(test)]
pub(crate) mod tests;
