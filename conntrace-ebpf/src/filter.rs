//! Which attempts are traced: asked once, when one begins, so that what is
//! filtered out costs a few lookups and leaves nothing behind.

use aya_ebpf::{Global, maps::lpm_trie::Key};
use conntrace_common::{
    filter::{Id, kind, mapped},
    record::AF_INET,
};

use crate::{
    kernel::{self, Caller, Sock},
    maps::{FILTER_COMMS, FILTER_IDS, FILTER_NETWORKS, FILTER_PORTS},
};

/// How deep cgroups may lie that a filter of their kind looks at.
const CGROUP_DEPTH_MAX: i32 = 32;

/// Set by the agent: the kinds that are set.
#[unsafe(no_mangle)]
#[expect(unsafe_code, reason = "the agent finds the global by name")]
static FILTERS: Global<u32> = Global::new(0);

/// Whether this kind is set at all, or any of these.
#[inline(always)]
pub fn is_set(kinds: u32) -> bool {
    FILTERS.load() & kinds != 0
}

/// Whether everything fits that can be asked of the socket alone.
#[inline(always)]
pub fn socket_passes(sock: Sock) -> bool {
    (!is_set(kind::PORT) || port_passes(u16::from_be(sock.remote_port())))
        && (!is_set(kind::NETNS) || id_passes(kind::NETNS, u64::from(sock.netns())))
        && (!is_set(kind::NETWORK) || network_passes(sock))
}

/// Whether the caller fits, apart from its cgroup.
#[inline(always)]
pub fn caller_passes(caller: &Caller) -> bool {
    (!is_set(kind::PID) || id_passes(kind::PID, u64::from(caller.pid)))
        && (!is_set(kind::UID) || id_passes(kind::UID, u64::from(caller.uid)))
        && (!is_set(kind::COMM) || comm_passes(caller))
}

/// Whether the running task's cgroup fits, or one above it.
#[inline(always)]
pub fn cgroup_passes() -> bool {
    if !is_set(kind::CGROUP) {
        return true;
    }
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
fn comm_passes(caller: &Caller) -> bool {
    FILTER_COMMS.get_ptr(caller.comm).is_some()
        || FILTER_COMMS.get_ptr(caller.leader_comm).is_some()
}

#[inline(always)]
fn network_passes(sock: Sock) -> bool {
    let family = sock.family();
    let addr = sock.remote_addr(family);
    let addr = if family == AF_INET {
        let [a, b, c, d, ..] = addr;
        mapped([a, b, c, d])
    } else {
        addr
    };
    FILTER_NETWORKS.get(Key::new(128, addr)).is_some()
}

#[inline(always)]
fn port_passes(port: u16) -> bool {
    let word = FILTER_PORTS.get(u32::from(port) / u64::BITS);
    word.is_some_and(|bits| bits >> (u32::from(port) % u64::BITS) & 1 != 0)
}
