//! Names of states and operations, for readers.

use super::figures::UNTRACED;

/// Operation of the meter.
pub(super) struct OperationName {
    pub(super) name: &'static str,
    pub(super) meaning: &'static str,
    /// Ends of the connection on this host, and the close.
    pub(super) ends: &'static str,
}

pub(super) const OPERATIONS: [OperationName; 8] = [
    OperationName {
        name: "refused",
        meaning: "connect to a closed port",
        ends: "both ends, refused",
    },
    OperationName {
        name: "rst",
        meaning: "connect, accept, close by RST (the kinder close)",
        ends: "both ends, RST",
    },
    OperationName {
        name: "close",
        meaning: "connect, accept, ordinary close",
        ends: "both ends, FIN",
    },
    OperationName {
        name: "accepted",
        meaning: "accept and ordinary close, the far end elsewhere",
        ends: "one end, FIN",
    },
    OperationName {
        name: "drop",
        meaning: "unrelated dropped packet: UDP to a closed port",
        ends: "no connection",
    },
    OperationName {
        name: "udp",
        meaning: "UDP send and receive",
        ends: "no connection",
    },
    OperationName {
        name: "tcp",
        meaning: "one byte over an established connection",
        ends: "both ends, no close",
    },
    OperationName {
        name: "syscalls",
        meaning: "20 system calls (getppid)",
        ends: "no connection",
    },
];

/// States of conntrace, and their meaning.
pub(super) const OWN_STATES: [(&str, &str); 5] = [
    ("tracepoint", "`tracepoint`"),
    ("full", "`full`"),
    ("kprobe", "`kprobe`"),
    (
        "tracepoint-port-1",
        "`tracepoint`, a filter that fits nothing",
    ),
    ("full-port-1", "`full`, a filter that fits nothing"),
];

/// Other programs, and their meaning.
pub(super) const PEERS: [(&str, &str); 2] = [
    ("bpftrace", "bpftrace, state tracepoint + printf"),
    ("tcpstates", "libbpf-tools tcpstates"),
];

/// True for a state of conntrace.
pub(super) fn is_own(state: &str) -> bool {
    state != UNTRACED && PEERS.iter().all(|(name, _)| *name != state)
}
