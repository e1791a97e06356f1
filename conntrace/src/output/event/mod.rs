//! The lines as they are serialised, and their JSON Schema. A recording serialises types of
//! its own.

mod attempt;
mod port_pressure;
mod totals;

use std::{borrow::Cow, net::IpAddr, sync::Arc};

use jiff::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings, json_schema};
use serde::{Deserialize, Serialize, Serializer};

pub use attempt::{
    Container, Details, Outcome, Owner, Process, RemoteEnd, Runtime, Stall, Subject, Syn, outcome,
    stall,
};
pub use port_pressure::{PortPressure, PortUse, States, port_pressure};
pub use totals::{Loss, Lost, Stop, Top, Totals, Undelivered};

/// Version of the lines. Goes up when a field is removed or changes meaning,
/// not when one is added.
pub const SCHEMA: u32 = 1;

/// Longest line in bytes, the newline included: with a header of its own rsyslog keeps it
/// by default.
pub const LINE_LEN_MAX: usize = 7900;

/// Most bytes a task's name takes in a line: 16, each at most 6 when escaped.
pub(crate) const COMM_JSON_MAX: usize = 96;

/// Most bytes a path takes in a line.
pub(crate) const PATH_JSON_MAX: usize = 640;

/// Most bytes a host's name takes in a line: 64 (`__NEW_UTS_LEN`), each at most 6 when
/// escaped.
pub(crate) const HOST_JSON_MAX: usize = 384;

/// Most bytes a name in the DNS, or one of those that a container has, takes in a line.
pub(crate) const NAME_JSON_MAX: usize = 256;

/// Most bytes that the reason for which a hook is not attached takes in a line.
pub(crate) const REASON_JSON_MAX: usize = 256;

/// One line. Its fields are written in this order.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Line {
    /// Moment at which the kernel saw it, UTC.
    pub time: Time,
    /// Name of this host (`uname -n`).
    pub hostname: Arc<str>,
    /// Content, by its `type`.
    #[serde(flatten)]
    pub event: Event,
    /// Version of the lines: raised when a field is removed or changes meaning.
    pub schema: u32,
}

impl Line {
    /// A line of the present version.
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

/// Moment in RFC 3339, UTC, with nine digits of a second.
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
    /// Tracing is live.
    Start(Start),
    /// A connection attempt has ended.
    Outcome(Box<Outcome>),
    /// First SYN retransmission of an attempt, which goes on.
    Stall(Box<Stall>),
    /// Connections to one destination use up the local ports, or no longer do.
    PortPressure(Box<PortPressure>),
    /// Something could not be delivered.
    Loss(Loss),
    /// Totals since the start.
    Summary(Totals),
    /// Tracing has ended: the last line.
    Stop(Stop),
}

/// Tracing is live: the hooks in use, and their coverage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Start {
    /// Version of conntrace.
    pub version: Cow<'static, str>,
    /// Id of this boot (`/proc/sys/kernel/random/boot_id`), null where it cannot be read.
    /// Together with it an `attempt_id` is unique.
    pub boot_id: Option<String>,
    /// Release of the kernel (`uname -r`).
    pub kernel: String,
    /// Kind of hooks that this kernel offered: `full`, `kprobe` or `tracepoint`.
    pub tier: Cow<'static, str>,
    /// Process id of conntrace.
    pub pid: u32,
    /// Every hook, attached or not.
    pub hooks: Vec<HookState>,
    /// Kinds of endings that these hooks see.
    pub coverage: Coverage,
}

/// State of one hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HookState {
    /// Name of the BPF program.
    pub name: Cow<'static, str>,
    /// Type of the attachment, such as `fentry`, `kprobe` or `tp_btf`.
    pub kind: Cow<'static, str>,
    /// True once the program is attached.
    pub attached: bool,
    /// Reason for which the program is not attached, null if it is.
    pub reason: Option<String>,
}

/// Kinds of endings and answers that the attached hooks see.
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
    /// IP address, null where none is known. An IPv4-mapped IPv6 address is written as
    /// IPv4.
    pub addr: Option<IpAddr>,
    /// TCP port, null where none is known or none was assigned.
    pub port: Option<u16>,
}

/// The JSON Schema (2020-12) of every line.
#[must_use]
pub fn json_schema() -> Schema {
    SchemaSettings::draft2020_12()
        .for_serialize()
        .into_generator()
        .into_root_schema_for::<Line>()
}

#[cfg(test)]
pub(crate) mod tests;
