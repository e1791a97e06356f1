//! The lines that tell of one attempt: outcome and stall.

use std::{borrow::Cow, net::IpAddr, sync::Arc};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{COMM_JSON_MAX, Endpoint, Time};
use crate::{
    diagnosis::{Cause, DiagnosisResult, Undiagnosed, WrittenCause},
    output::message,
    record::{
        Attempt, Caller, Comm, Errno, Label, Reply, ReplyKind, Seen, TimeoutBy, Verdict, reply,
        sanitize,
    },
};

/// Ending of a connection attempt.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Outcome {
    /// Label of the ending.
    pub label: Label,
    /// Error that the application was told or would be, null if it was told none.
    pub errno: Option<Cow<'static, str>>,
    /// Sentence for a person, caller and destination.
    #[serde(flatten)]
    pub subject: Subject,
    /// Explanation of the ending, null without evidence for one.
    #[schemars(with = "Option<Cause>")]
    pub cause: Option<Arc<WrittenCause>>,
    /// Reason for which the search for the cause is incomplete, null if every answer that
    /// was needed came.
    pub undiagnosed: Option<Undiagnosed>,
    /// Course of the attempt.
    #[serde(flatten)]
    pub details: Details,
}

/// First SYN retransmission of an attempt, which goes on.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Stall {
    /// Sentence for a person, caller and destination.
    #[serde(flatten)]
    pub subject: Subject,
    /// Course of the attempt so far.
    #[serde(flatten)]
    pub details: Details,
}

/// Sentence for a person, caller and destination.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Subject {
    /// Sentence for a person.
    pub message: String,
    /// Process that called connect.
    pub process: Process,
    /// Container of that process, null where its cgroup names none.
    pub container: Option<Container>,
    /// Destination of the attempt.
    pub remote: RemoteEnd,
}

/// Course of an attempt. Fields that cannot be known are null.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Details {
    /// Address and port of this side.
    pub local: Endpoint,
    /// Inode number of the socket's network namespace.
    pub netns: Option<u32>,
    /// Moment at which connect was called, UTC.
    pub started: Option<Time>,
    /// Microseconds since connect was called.
    pub elapsed_us: Option<u64>,
    /// Numbers of SYNs.
    pub syn: Syn,
    /// Answer to the attempt.
    pub reply: Reply,
    /// Side that gave up waiting, null unless the attempt timed out.
    pub timeout_by: Option<TimeoutBy>,
    /// Number of like lines that `--limit` left out since the last one printed. Like are those
    /// of one cgroup, thread name, remote and label; beyond 4,096 such kinds at once further and
    /// forgotten ones are counted together.
    pub suppressed: u64,
    /// Share of the attempt that was seen.
    pub seen: Seen,
    /// Id of the attempt, unique within the boot (see `boot_id` in the start line). A stall
    /// and its outcome share it.
    pub attempt_id: String,
    /// This host's part in it, in words.
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) own_part: &'static str,
}

/// Process that called connect.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Process {
    /// Process id (tgid) in the root pid namespace.
    pub pid: Option<u32>,
    /// Thread id in the root pid namespace.
    pub tid: Option<u32>,
    /// Name of the thread that called connect.
    pub comm: Option<String>,
    /// Name of the process, which is that of its first thread.
    pub leader_comm: Option<String>,
    /// Path of the executable, null when the process is gone or has none.
    pub exe: Option<Arc<str>>,
    /// Real user id.
    pub uid: Option<u32>,
    /// Path of the cgroup (v2) from the root of the cgroup filesystem.
    pub cgroup: Option<Arc<str>>,
}

/// Container of the calling process. Fields that cannot be known are null.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Container {
    /// Id of the container: 64 hexadecimal digits.
    pub id: Option<Arc<str>>,
    /// Name of the container.
    pub name: Option<Arc<str>>,
    /// Container runtime that made the cgroup.
    pub runtime: Option<Runtime>,
    /// Name of the Kubernetes pod.
    pub pod: Option<Arc<str>>,
    /// Kubernetes namespace of the pod.
    pub namespace: Option<Arc<str>>,
}

/// Container runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Runtime {
    /// Docker Engine.
    Docker,
    /// Podman (libpod).
    Podman,
    /// containerd, driven by the kubelet (cri-containerd).
    Containerd,
    /// CRI-O.
    Crio,
}

/// Destination of an attempt.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct RemoteEnd {
    /// IP address of the socket's other side, null without a connect. An IPv4-mapped IPv6
    /// address is written as IPv4.
    pub addr: Option<IpAddr>,
    /// TCP port of the socket's other side.
    pub port: Option<u16>,
    /// Host name for which the process was given this address, null where unknown.
    pub name: Option<Arc<str>>,
    /// Address and port to which this host rewrote the destination, null where unknown.
    pub nat: Option<Endpoint>,
    /// Address and port that were passed to connect, null unless the socket got others.
    pub asked: Option<Endpoint>,
}

impl RemoteEnd {
    /// Address and port of the socket's other side.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        Endpoint {
            addr: self.addr,
            port: self.port,
        }
    }
}

/// Numbers of SYNs of an attempt.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
pub struct Syn {
    /// Number of SYNs that left. Where SYNs crossed (simultaneous open, a socket connected
    /// to itself) this includes the SYN-ACK that answered the other one.
    pub sent: Option<u32>,
    /// Number of SYNs that left again: before their time where an answer to another SYN
    /// came.
    pub retransmitted: Option<u32>,
}

/// Executable, cgroup and container of a caller, as found in userspace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Path of the executable.
    pub exe: Option<Arc<str>>,
    /// Path of the cgroup.
    pub cgroup: Option<Arc<str>>,
    /// Container, if the path of the cgroup names one.
    pub container: Option<Container>,
}

/// The outcome line's content.
#[must_use]
pub fn outcome(
    attempt: &Attempt,
    verdict: &Verdict,
    started: Timestamp,
    owner: Owner,
    DiagnosisResult { cause, undiagnosed }: DiagnosisResult,
) -> Outcome {
    let mut subject = subject(attempt, owner);
    let details = details(attempt, Some(verdict), started);
    let why = cause.as_ref().map(|cause| cause.why.as_str());
    subject.message = message::outcome(&subject, &details, attempt.heard, verdict, why);
    Outcome {
        label: verdict.label,
        errno: verdict.errno.map(Errno::name),
        subject,
        cause,
        undiagnosed,
        details,
    }
}

/// The stall line's content.
#[must_use]
pub fn stall(attempt: &Attempt, started: Timestamp, owner: Owner) -> Stall {
    let mut subject = subject(attempt, owner);
    let details = details(attempt, None, started);
    subject.message = message::stall(&subject, &details, attempt.heard);
    Stall { subject, details }
}

/// All but the message.
fn subject(attempt: &Attempt, owner: Owner) -> Subject {
    Subject {
        message: String::new(),
        process: process(attempt.caller.as_ref(), owner.exe, owner.cgroup),
        container: owner.container,
        remote: RemoteEnd {
            addr: attempt.remote.map(|remote| remote.addr),
            port: attempt.remote.map(|remote| remote.port),
            ..RemoteEnd::default()
        },
    }
}

fn details(attempt: &Attempt, verdict: Option<&Verdict>, since: Timestamp) -> Details {
    // What only its beginning tells is unknown of an attempt not seen whole.
    let whole = attempt.seen == Seen::Whole;
    let reply = reply(attempt);
    Details {
        local: Endpoint {
            addr: attempt.local_addr,
            port: attempt.local_port,
        },
        netns: Some(attempt.netns),
        started: whole.then_some(Time(since)),
        elapsed_us: whole.then(|| (attempt.at_ns - attempt.since_ns) / 1000),
        syn: Syn {
            sent: whole.then_some(attempt.syn_sent),
            retransmitted: whole.then_some(attempt.syn_retransmitted),
        },
        own_part: own_part(attempt, verdict, &reply),
        reply,
        timeout_by: verdict.and_then(|verdict| verdict.timeout_by),
        suppressed: 0,
        seen: attempt.seen,
        // One thread calls one connect at a time.
        attempt_id: format!("{:x}-{:x}", attempt.since_ns, attempt.serial),
    }
}

/// Words for a reply of the kind `local`. Refused and unreachable attempts were answered by
/// this host; of others it dropped packets, or only noted an error of its own
/// (`sk_err_soft`).
fn own_part(attempt: &Attempt, verdict: Option<&Verdict>, reply: &Reply) -> &'static str {
    let label = verdict.map(|verdict| verdict.label);
    let answered = matches!(label, Some(Label::Refused | Label::Unreachable));
    match reply.kind {
        ReplyKind::Local if reply.icmp_type.is_some() || answered => "this host itself",
        ReplyKind::Local if attempt.drops.is_some() => "dropped here",
        ReplyKind::Local => "an error of this host's own",
        ReplyKind::None | ReplyKind::SynAck | ReplyKind::Rst | ReplyKind::Icmp => "",
    }
}

fn process(caller: Option<&Caller>, exe: Option<Arc<str>>, cgroup: Option<Arc<str>>) -> Process {
    let name = |comm: &Comm| sanitize::bounded(comm.as_bytes(), COMM_JSON_MAX);
    Process {
        pid: caller.map(|caller| caller.pid),
        tid: caller.and_then(|caller| caller.tid),
        comm: caller.map(|caller| name(&caller.comm)),
        leader_comm: caller.map(|caller| name(&caller.leader_comm)),
        exe,
        uid: caller.map(|caller| caller.uid),
        cgroup,
    }
}
