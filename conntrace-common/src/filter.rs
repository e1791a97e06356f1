//! Filters that the kernel side applies when an attempt begins. An attempt must match one value
//! of every kind that is set.

/// Kinds of filters: a bit each in the global `FILTERS`, and the first half of a key of the map
/// `FILTER_IDS`.
pub mod kind {
    /// Process id (thread group id) in the root pid namespace.
    pub const PID: u32 = 1 << 0;
    /// Name of the thread or of its process.
    pub const COMM: u32 = 1 << 1;
    /// Real user id.
    pub const UID: u32 = 1 << 2;
    /// Id of the caller's cgroup (v2) or of one above it.
    pub const CGROUP: u32 = 1 << 3;
    /// Inode number of the socket's network namespace.
    pub const NETNS: u32 = 1 << 4;
    /// Network of the destination address.
    pub const NETWORK: u32 = 1 << 5;
    /// Destination port.
    pub const PORT: u32 = 1 << 6;

    /// Kinds that match the caller.
    pub const OF_CALLER: u32 = PID | COMM | UID | CGROUP;
    /// Kinds that match the destination.
    pub const OF_REMOTE: u32 = NETWORK | PORT;
}

/// Maximum number of values of the kinds pid, uid, cgroup and netns together.
pub const IDS_MAX: u32 = 4096;
/// Maximum number of task names.
pub const COMMS_MAX: u32 = 1024;
/// Maximum number of networks.
pub const NETWORKS_MAX: u32 = 4096;
/// Size of the port set in 64-bit words, a bit for each port.
pub const PORT_WORDS: u32 = 65_536 / u64::BITS;

/// Key of the map `FILTER_IDS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id {
    /// Kind of the value, a constant of [`kind`].
    pub kind: u64,
    /// Id of the process, user, cgroup or namespace.
    pub value: u64,
}

const _: () = assert!(size_of::<Id>() == 16);

/// Converts an IPv4 address to a v4-mapped one, because the map of networks has only IPv6 keys.
#[must_use]
pub const fn mapped(v4: [u8; 4]) -> [u8; 16] {
    let [a, b, c, d] = v4;
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}
