//! Lines about one attempt: outcome and stall.

use std::{borrow::Cow, net::IpAddr, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Endpoint, Time};
use crate::{
    diagnosis::{Cause, Undiagnosed, WrittenCause},
    record::{EarlyLimit, Label, Reply, Seen, TimeoutBy},
};

/// Ending of a connection attempt.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Outcome {
    /// Label of the ending.
    pub label: Label,
    /// Error returned to the application, or that it would get; null if there is none.
    pub errno: Option<Cow<'static, str>>,
    /// Sentence for a person, caller and destination.
    #[serde(flatten)]
    pub subject: Subject,
    /// Cause of the ending; null without evidence.
    #[schemars(with = "Option<Cause>")]
    pub cause: Option<Arc<WrittenCause>>,
    /// Reason why the search for the cause is incomplete; null if it is complete.
    pub undiagnosed: Option<Undiagnosed>,
    /// Course of the attempt.
    #[serde(flatten)]
    pub details: Details,
}

/// First SYN retransmission of an attempt that continues.
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
    /// Container of that process; null if its cgroup names none.
    pub container: Option<Container>,
    /// Destination of the attempt.
    pub remote: RemoteEnd,
}

/// Course of an attempt. Unknown fields are null.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Details {
    /// Local address and port.
    pub local: Endpoint,
    /// Inode number of the socket's network namespace.
    pub netns: Option<u32>,
    /// Time of the call of connect, UTC.
    pub started: Option<Time>,
    /// Microseconds from the call of connect to this event.
    pub elapsed_us: Option<u64>,
    /// Numbers of SYNs sent.
    pub syn: Syn,
    /// Reply to the attempt.
    pub reply: Reply,
    /// Side that gave up waiting; null unless the attempt timed out.
    pub timeout_by: Option<TimeoutBy>,
    /// Number of similar lines that `--limit` suppressed since the last one printed. Similar lines
    /// share cgroup, thread name, remote and label. Beyond 4,096 such groups at once, further and
    /// evicted ones are counted together.
    pub suppressed: u64,
    /// Part of the attempt that was seen.
    pub seen: Seen,
    /// Id of the attempt, unique within the boot (see `boot_id` in the start line). A stall and its
    /// outcome have the same id.
    pub attempt_id: String,
    /// Role of this host in the reply, in words.
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) own_part: &'static str,
    /// Setting for which the kernel gave up early.
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) early_limit: Option<EarlyLimit>,
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
    /// Name of the process, that of its main thread.
    pub leader_comm: Option<String>,
    /// Path of the executable; null if the process has exited or has none.
    pub exe: Option<Arc<str>>,
    /// Real user id.
    pub uid: Option<u32>,
    /// Path of the cgroup (v2) below the root of the cgroup filesystem.
    pub cgroup: Option<Arc<str>>,
}

/// Container of the calling process. Unknown fields are null.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Container {
    /// Id of the container: 64 hexadecimal digits.
    pub id: Option<Arc<str>>,
    /// Name of the container.
    pub name: Option<Arc<str>>,
    /// Container runtime that created the cgroup.
    pub runtime: Option<Runtime>,
    /// Name of the Kubernetes pod.
    pub pod: Option<Arc<str>>,
    /// Kubernetes namespace of the pod.
    pub namespace: Option<Arc<str>>,
}

/// Container runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Runtime {
    /// Docker Engine.
    Docker,
    /// Podman (libpod).
    Podman,
    /// containerd, used by the kubelet (cri-containerd).
    Containerd,
    /// CRI-O.
    Crio,
}

/// Destination of an attempt.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct RemoteEnd {
    /// IP address of the peer; null without a destination. An IPv4-mapped IPv6 address is written
    /// as IPv4.
    pub addr: Option<IpAddr>,
    /// TCP port of the peer.
    pub port: Option<u16>,
    /// Host name that the process resolved to this address; null if unknown.
    pub name: Option<Arc<str>>,
    /// Address and port to which the destination was translated, as a packet of the attempt had them where
    /// this machine dropped it, or where it met no socket, or as connection tracking had them of a SYN that
    /// nobody answered; null if unknown.
    pub nat: Option<Endpoint>,
    /// Address and port passed to connect; null if the socket has the same.
    pub asked: Option<Endpoint>,
}

impl RemoteEnd {
    /// Returns the address and port of the peer.
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
    /// Number of SYNs sent. With crossing SYNs (simultaneous open, a socket connected to itself) it
    /// includes the SYN-ACK for the peer's SYN.
    pub sent: Option<u32>,
    /// Number of SYN retransmissions. They can come early, after an answer to another SYN.
    pub retransmitted: Option<u32>,
}

/// Executable, cgroup and container of a caller, as found in userspace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Owner {
    /// Path of the executable.
    pub exe: Option<Arc<str>>,
    /// Path of the cgroup.
    pub cgroup: Option<Arc<str>>,
    /// Container, if the cgroup's path names one.
    pub container: Option<Container>,
}
