//! The filters that the kernel side applies when an attempt begins: within a
//! kind one must fit, and of every kind that is set.

/// Kinds of filters: a bit each in the global `FILTERS`, and the first half of a
/// key of the map `FILTER_IDS`.
pub mod kind {
    /// Process id (thread group) in the root pid namespace.
    pub const PID: u32 = 1 << 0;
    /// Name of the thread or of its process.
    pub const COMM: u32 = 1 << 1;
    /// Real user id.
    pub const UID: u32 = 1 << 2;
    /// Id of the caller's cgroup (v2) or of one above it.
    pub const CGROUP: u32 = 1 << 3;
    /// Inode number of the socket's network namespace.
    pub const NETNS: u32 = 1 << 4;
    /// Destination network.
    pub const NETWORK: u32 = 1 << 5;
    /// Destination port.
    pub const PORT: u32 = 1 << 6;

    /// Those that ask who called.
    pub const OF_CALLER: u32 = PID | COMM | UID | CGROUP;
    /// Those that ask where to.
    pub const OF_REMOTE: u32 = NETWORK | PORT;
}

/// Most values of the kinds pid, uid, cgroup and netns together.
pub const IDS_MAX: u32 = 4096;
/// Most names.
pub const COMMS_MAX: u32 = 1024;
/// Most networks.
pub const NETWORKS_MAX: u32 = 4096;
/// The set of ports is a bit for each, in words.
pub const PORT_WORDS: u32 = 65_536 / u64::BITS;

/// A key of `FILTER_IDS`: a kind and a value of it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id {
    /// One of [`kind`].
    pub kind: u64,
    /// The process, user, cgroup or namespace.
    pub value: u64,
}

const _: () = assert!(size_of::<Id>() == 16);

/// An IPv4 address among the IPv6 ones: the map of networks knows one family.
#[must_use]
pub const fn mapped(v4: [u8; 4]) -> [u8; 16] {
    let [a, b, c, d] = v4;
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}
