//! The local ports of a network namespace and their use, as far as a cause needs them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::question::NamedProcess;

/// Settings of the local ports, and their use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalPorts {
    /// `ip_local_port_range`.
    pub range: (u16, u16),
    /// Ports of the range that `ip_local_reserved_ports` leaves out.
    pub reserved: u32,
    /// `tcp_tw_reuse`.
    pub tw_reuse: u8,
    /// Sockets to the destination by state, all local ports counted.
    pub states: BTreeMap<String, u32>,
    /// Ports of the range that these hold, without the reserved ones.
    pub connected: u32,
    /// Ports of the range that others hold: bound sockets that are not connected,
    /// listening ones among them. Of a bind: that any socket holds.
    pub bound: u32,
    /// Ports of the range that no socket has, whatever its destination.
    pub free: u32,
    /// Processes with most sockets to the destination, where there was time to look.
    pub connected_by: Vec<Holding>,
    /// Processes with most bound sockets, where there was time to look.
    pub bound_by: Vec<Holding>,
    /// The range that is advised where this one is too small; `None` in recordings that lack it.
    #[serde(default)]
    pub wider: Option<WiderRange>,
}

/// The range of local ports that is advised where one is too small: from 10,000, or from the lowest
/// port of the present range, to 65,535.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WiderRange {
    /// Ports of it that nobody listens on and that are not reserved.
    pub available: u32,
    /// Ports of it that somebody listens on and that are not reserved, in ascending order; `None` if
    /// they are more than [`LISTENED_MAX`](Self::LISTENED_MAX).
    pub listened: Option<Vec<u16>>,
    /// `ip_local_reserved_ports` as it stands; `None` if it is longer than
    /// [`RESERVED_LEN_MAX`](Self::RESERVED_LEN_MAX) bytes.
    pub reserved: Option<String>,
}

impl WiderRange {
    /// Maximum number of ports in [`listened`](Self::listened).
    pub const LISTENED_MAX: usize = 32;
    /// Maximum number of bytes of [`reserved`](Self::reserved).
    pub const RESERVED_LEN_MAX: usize = 256;

    /// Returns first and last port of the range that is advised instead of this one.
    #[must_use]
    pub fn instead_of((low, _): (u16, u16)) -> (u16, u16) {
        (low.min(10_000), u16::MAX)
    }
}

/// Number of sockets that a process holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// The process.
    pub process: NamedProcess,
    /// Number of sockets.
    pub sockets: u32,
}
