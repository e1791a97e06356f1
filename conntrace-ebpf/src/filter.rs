//! Filters of the traced attempts. They apply once, when an attempt begins, so that an ignored
//! attempt costs a few lookups and leaves nothing behind.

use aya_ebpf::{Global, maps::lpm_trie::Key};
use conntrace_common::{
    filter::{Id, kind, mapped},
    record::{AF_INET, COMM_LEN, RawOpening},
};

use crate::{
    kernel::{self, SockCommon},
    maps::{FILTER_COMMS, FILTER_IDS, FILTER_NETWORKS, FILTER_PORTS},
    sync::load,
};

/// Maximum depth at which a cgroup filter finds a cgroup.
const CGROUP_DEPTH_MAX: i32 = 32;

/// Set by the agent to the filter kinds in use.
#[unsafe(no_mangle)]
#[expect(unsafe_code, reason = "the agent finds the global by name")]
static FILTERS: Global<u32> = Global::new(0);

/// Returns true if a filter of any of these kinds is set.
#[inline(always)]
pub fn is_set(kinds: u32) -> bool {
    FILTERS.load() & kinds != 0
}

/// Destination and namespace of an attempt. Only the fields that filters need are read.
pub trait RemoteFields {
    fn netns(&self) -> u32;
    fn family(&self) -> u16;
    /// Returns the address, in the layout of `RawAttempt::remote_addr`.
    fn remote_addr(&self) -> [u8; 16];
    /// Returns the port in network order.
    fn remote_port(&self) -> u16;
}

impl RemoteFields for SockCommon {
    #[inline(always)]
    fn netns(&self) -> u32 {
        SockCommon::netns(*self)
    }

    #[inline(always)]
    fn family(&self) -> u16 {
        SockCommon::family(*self)
    }

    #[inline(always)]
    fn remote_addr(&self) -> [u8; 16] {
        SockCommon::remote_addr(*self)
    }

    #[inline(always)]
    fn remote_port(&self) -> u16 {
        SockCommon::remote_port(*self)
    }
}

/// Returns true if all filters except those of the caller match.
#[inline(always)]
pub fn destination_passes(to: &impl RemoteFields) -> bool {
    !is_set(!kind::OF_CALLER) || matches_destination(to)
}

/// Returns true if the filter of the port matches.
#[inline(always)]
pub fn port_passes(to: &impl RemoteFields) -> bool {
    !is_set(kind::PORT) || has_port(u16::from_be(to.remote_port()))
}

#[inline(always)]
fn matches_destination(to: &impl RemoteFields) -> bool {
    port_passes(to)
        && (!is_set(kind::NETNS) || id_passes(kind::NETNS, u64::from(to.netns())))
        && (!is_set(kind::NETWORK) || network_passes(to))
}

/// Caller of an attempt. Only the fields that filters need are read.
pub trait CallerFields {
    fn pid(&self) -> u32;
    fn uid(&self) -> u32;
    /// Returns the names of the thread and of its process.
    fn names(&self) -> [[u8; COMM_LEN]; 2];
    fn in_cgroup(&self) -> bool;
}

/// Caller that is the running task.
pub struct Current;

impl CallerFields for Current {
    #[inline(always)]
    fn pid(&self) -> u32 {
        (kernel::thread_key() >> 32) as u32
    }

    #[inline(always)]
    fn uid(&self) -> u32 {
        kernel::current_uid()
    }

    #[inline(always)]
    fn names(&self) -> [[u8; COMM_LEN]; 2] {
        kernel::current_names()
    }

    #[inline(always)]
    fn in_cgroup(&self) -> bool {
        cgroup_passes()
    }
}

/// Process that holds a socket, as it is written to a record. Its cgroup is unknown.
pub struct Holder<'a>(pub &'a RawOpening);

impl CallerFields for Holder<'_> {
    #[inline(always)]
    fn pid(&self) -> u32 {
        load(&self.0.pid)
    }

    #[inline(always)]
    fn uid(&self) -> u32 {
        load(&self.0.uid)
    }

    #[inline(always)]
    fn names(&self) -> [[u8; COMM_LEN]; 2] {
        [self.0.comm, self.0.leader_comm]
    }

    #[inline(always)]
    fn in_cgroup(&self) -> bool {
        false
    }
}

/// Returns true if all filters of the caller match.
#[inline(always)]
pub fn caller_passes(caller: &impl CallerFields) -> bool {
    !is_set(kind::OF_CALLER) || matches_caller(caller)
}

#[inline(always)]
fn matches_caller(caller: &impl CallerFields) -> bool {
    (!is_set(kind::PID) || id_passes(kind::PID, u64::from(caller.pid())))
        && (!is_set(kind::UID) || id_passes(kind::UID, u64::from(caller.uid())))
        && (!is_set(kind::COMM) || comm_passes(caller.names()))
        && (!is_set(kind::CGROUP) || caller.in_cgroup())
}

/// Returns true if the cgroup of the running task, or one above it, matches.
#[inline(always)]
fn cgroup_passes() -> bool {
    for level in 0..CGROUP_DEPTH_MAX {
        let id = kernel::ancestor_cgroup_id(level);
        if id == 0 {
            return false;
        }
        if id_passes(kind::CGROUP, id) {
            return true;
        }
    }
    false
}

#[inline(always)]
fn id_passes(kind: u32, value: u64) -> bool {
    let id = Id {
        kind: u64::from(kind),
        value,
    };
    FILTER_IDS.get_ptr(id).is_some()
}

#[inline(always)]
fn comm_passes([comm, leader_comm]: [[u8; COMM_LEN]; 2]) -> bool {
    FILTER_COMMS.get_ptr(comm).is_some() || FILTER_COMMS.get_ptr(leader_comm).is_some()
}

#[inline(always)]
fn network_passes(to: &impl RemoteFields) -> bool {
    let addr = to.remote_addr();
    let addr = if to.family() == AF_INET {
        let [a, b, c, d, ..] = addr;
        mapped([a, b, c, d])
    } else {
        addr
    };
    FILTER_NETWORKS.get(Key::new(128, addr)).is_some()
}

#[inline(always)]
fn has_port(port: u16) -> bool {
    let word = FILTER_PORTS.get(u32::from(port) / u64::BITS);
    word.is_some_and(|bits| bits >> (u32::from(port) % u64::BITS) & 1 != 0)
}
