//! The lines: the only types that are serialised, and their JSON Schema.

mod cause;
mod port_pressure;
mod totals;

use std::{borrow::Cow, net::IpAddr, sync::Arc};

use jiff::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings, json_schema};
use serde::{Deserialize, Serialize, Serializer};

pub use cause::{Cause, Certainty, Code, Facts, WrittenCause};
pub use port_pressure::{PortPressure, PortUse, States, port_pressure};
pub use totals::{Loss, Stop, Top, Totals};

use crate::{
    errno::Errno,
    label::{Label, TimeoutBy, Verdict},
    message,
    reply::{Reply, reply},
    text,
    wire::{Attempt, Caller, Comm, Seen},
};

/// Version of the lines. Goes up when a field is removed or changes meaning,
/// not when one is added.
pub const SCHEMA: u32 = 1;

/// Longest line in bytes, the newline included.
pub const LINE_LEN_MAX: usize = 8 * 1024;

/// Most bytes a task's name takes in a line: 16, each at most 6 when escaped.
pub(crate) const COMM_JSON_MAX: usize = 96;

/// Most bytes a path takes in a line.
pub(crate) const PATH_JSON_MAX: usize = 1024;

/// One line.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Line {
    /// Version of the lines.
    pub schema: u32,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
    /// When the kernel saw it, UTC.
    pub time: Time,
    /// This host's name.
    pub host: Arc<str>,
}

impl Line {
    /// A line of the present version.
    #[must_use]
    pub fn new(event: Event, time: Timestamp, host: &Arc<str>) -> Self {
        Self {
            schema: SCHEMA,
            event,
            time: Time(time),
            host: Arc::clone(host),
        }
    }
}

/// A moment: RFC 3339, UTC, always nine digits of a second.
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

/// What a line says, by its `type`.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// Tracing is live.
    Start(Start),
    /// An attempt has ended.
    Outcome(Box<Outcome>),
    /// An attempt's first SYN retransmission: it goes on.
    Stall(Box<Stall>),
    /// Connections to one destination use up the local ports.
    PortPressure(Box<PortPressure>),
    /// Something could not be delivered.
    Loss(Loss),
    /// Totals since the start.
    Summary(Totals),
    /// The last line.
    Stop(Stop),
}

/// Tracing is live: what it will see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Start {
    /// Version of conntrace.
    pub version: Cow<'static, str>,
    /// `uname -r`.
    pub kernel: String,
    /// Which kind of hooks this kernel offered.
    pub tier: Cow<'static, str>,
    /// Process id of conntrace.
    pub pid: u32,
    /// Every hook, attached or not.
    pub hooks: Vec<HookState>,
    /// What can be seen with these hooks.
    pub coverage: Coverage,
}

/// A hook and whether it is attached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HookState {
    /// The program's name.
    pub name: Cow<'static, str>,
    /// How it is attached.
    pub kind: Cow<'static, str>,
    /// Whether it is.
    pub attached: bool,
    /// Why not.
    pub reason: Option<String>,
}

/// What the attached hooks can see.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Coverage {
    /// Completed handshakes.
    pub established: bool,
    /// Refusals by RST.
    pub rst: bool,
    /// The kernel's own timeouts.
    pub kernel_timeout: bool,
    /// Attempts the application gave up.
    pub app_timeout: bool,
    /// No local port left.
    pub port_exhausted: bool,
    /// The chosen 4-tuple is in use.
    pub tuple_in_use: bool,
    /// Sockets killed by someone else.
    pub aborted: bool,
    /// SYN retransmissions.
    pub stall: bool,
    /// ICMPv4 errors with type, code and sender.
    pub icmp: bool,
    /// Packets of an attempt that this host dropped.
    pub local_drop: bool,
    /// ICMPv6 errors with type, code and sender.
    pub icmp6_detail: bool,
    /// Routes that are not there.
    pub no_route: bool,
    /// Attempts that this host's policy denies.
    pub local_denial: bool,
    /// bind to port 0 without a port left.
    pub bind_exhausted: bool,
}

/// An attempt has ended.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Outcome {
    /// The attempt.
    #[serde(flatten)]
    pub attempt: AttemptFields,
    /// How it ended.
    pub label: Label,
    /// What the application was told or would be; null if nothing.
    pub errno: Option<Cow<'static, str>>,
    /// Why it ended so, if there is evidence.
    #[schemars(with = "Option<Cause>")]
    pub cause: Option<Arc<WrittenCause>>,
}

/// An attempt has not been answered yet.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Stall {
    /// The attempt.
    #[serde(flatten)]
    pub attempt: AttemptFields,
}

/// What outcome and stall say of an attempt. What cannot be known is null.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct AttemptFields {
    /// Unique for the life of the boot; a stall and its outcome share it.
    pub id: String,
    /// How much of it was seen.
    pub seen: Seen,
    /// The line for a person.
    pub message: String,
    /// Who called connect.
    pub process: Process,
    /// Inode number of the socket's network namespace.
    pub netns: Option<u32>,
    /// Our side.
    pub local: Endpoint,
    /// The other side.
    pub remote: Endpoint,
    /// When connect was called, UTC.
    pub started: Option<Time>,
    /// Microseconds since then.
    pub elapsed_us: Option<u64>,
    /// SYNs of this attempt.
    pub syn: Syn,
    /// What answered.
    pub reply: Reply,
    /// Who gave up waiting.
    pub timeout_by: Option<TimeoutBy>,
    /// Lines like this one that were left out before it.
    pub suppressed: u64,
}

/// Who called connect.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Process {
    /// Process id in the root pid namespace.
    pub pid: Option<u32>,
    /// Thread id in the root pid namespace.
    pub tid: Option<u32>,
    /// The thread's name.
    pub comm: Option<String>,
    /// The process's name.
    pub leader_comm: Option<String>,
    /// Path of the program, null when the process is gone or has none.
    pub exe: Option<Arc<str>>,
    /// Real user id.
    pub uid: Option<u32>,
    /// Path of the cgroup (v2), from the cgroup filesystem's root.
    pub cgroup: Option<Arc<str>>,
    /// Container id, if the cgroup's path names one.
    pub container: Option<Arc<str>>,
}

/// One side of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Endpoint {
    /// Its address; v4-mapped ones as IPv4.
    pub addr: Option<IpAddr>,
    /// Its port.
    pub port: Option<u16>,
}

/// SYNs of an attempt.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
pub struct Syn {
    /// That left. Where SYNs crossed (simultaneous open, a socket connected to
    /// itself) this includes the SYN-ACK that answered the other one.
    pub sent: Option<u32>,
    /// That left again: before their time where an answer came to another SYN.
    pub retransmitted: Option<u32>,
}

/// What userspace found out about the caller.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Path of the program.
    pub exe: Option<Arc<str>>,
    /// Path of the cgroup.
    pub cgroup: Option<Arc<str>>,
    /// Container id.
    pub container: Option<Arc<str>>,
}

/// The outcome line's content.
#[must_use]
pub fn outcome(
    attempt: &Attempt,
    verdict: &Verdict,
    started: Timestamp,
    owner: Owner,
    cause: Option<Arc<WrittenCause>>,
) -> Outcome {
    let mut fields = fields(attempt, started, owner);
    let why = cause.as_ref().map(|cause| cause.why.as_str());
    fields.message = message::outcome(&fields, verdict, why);
    fields.timeout_by = verdict.timeout_by;
    Outcome {
        attempt: fields,
        label: verdict.label,
        errno: verdict.errno.map(Errno::name),
        cause,
    }
}

/// The stall line's content.
#[must_use]
pub fn stall(attempt: &Attempt, started: Timestamp, owner: Owner) -> Stall {
    let mut fields = fields(attempt, started, owner);
    fields.message = message::stall(&fields);
    Stall { attempt: fields }
}

fn fields(attempt: &Attempt, since: Timestamp, owner: Owner) -> AttemptFields {
    // What only its beginning tells is unknown of an attempt not seen whole.
    let whole = attempt.seen == Seen::Whole;
    AttemptFields {
        // One thread calls one connect at a time.
        id: format!("{:x}-{:x}", attempt.since_ns, attempt.serial),
        seen: attempt.seen,
        message: String::new(),
        process: process(attempt.caller.as_ref(), owner),
        netns: Some(attempt.netns),
        local: Endpoint {
            addr: attempt.local_addr,
            port: attempt.local_port,
        },
        remote: Endpoint {
            addr: attempt.remote.map(|remote| remote.addr),
            port: attempt.remote.map(|remote| remote.port),
        },
        started: whole.then_some(Time(since)),
        elapsed_us: whole.then(|| (attempt.at_ns - attempt.since_ns) / 1000),
        syn: Syn {
            sent: whole.then_some(attempt.syn_sent),
            retransmitted: whole.then_some(attempt.syn_retransmitted),
        },
        reply: reply(attempt),
        timeout_by: None,
        suppressed: 0,
    }
}

fn process(caller: Option<&Caller>, owner: Owner) -> Process {
    let name = |comm: &Comm| text::bounded(comm.as_bytes(), COMM_JSON_MAX);
    Process {
        pid: caller.map(|caller| caller.pid),
        tid: caller.and_then(|caller| caller.tid),
        comm: caller.map(|caller| name(&caller.comm)),
        leader_comm: caller.map(|caller| name(&caller.leader_comm)),
        exe: owner.exe,
        uid: caller.map(|caller| caller.uid),
        cgroup: owner.cgroup,
        container: owner.container,
    }
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
