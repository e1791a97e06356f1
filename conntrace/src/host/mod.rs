//! The only code that looks at the host: /proc, sysctls, the cgroup filesystem,
//! `sock_diag`, rtnetlink and nftables.

mod answer_cache;
mod bpf_programs;
mod cache;
mod client;
mod inspector;
mod netlink;
mod netns;
mod port_usage;
mod procfs;

use std::{sync::Arc, time::Instant};

pub(crate) use answer_cache::AnswerCache;
pub use answer_cache::{Lookup, RecordedAnswer};
pub(crate) use client::{HostClient, WAIT_MAX};
use jiff::Timestamp;
pub use netlink::{nftables::ended_by as firewall_ended_by, route};
pub(crate) use netns::AttemptRef;
pub(crate) use port_usage::{PortScan, PortScanResult, PortScanner, ScannedPorts};

use self::procfs::{cgroup, cgroup::Cgroups, exe::Exes};
use crate::{
    output::event::{HOST_JSON_MAX, Owner},
    record::{Caller, clock::WallClock, sanitize},
    sys::proc_file,
};

/// This host's name: `uname -n`.
#[must_use]
pub fn host_name() -> Arc<str> {
    let name = proc_file::read("/proc/sys/kernel/hostname").unwrap_or_default();
    sanitize::bounded(name.trim_ascii_end(), HOST_JSON_MAX).into()
}

/// When an attempt began.
#[derive(Debug, Clone, Copy)]
pub struct AttemptStart {
    boot_ns: u64,
    wall: Timestamp,
}

impl AttemptStart {
    /// At this moment of `CLOCK_BOOTTIME`, in nanoseconds.
    #[must_use]
    pub fn new(boot_ns: u64, clock: &WallClock) -> Self {
        Self {
            boot_ns,
            wall: clock.at(boot_ns),
        }
    }
}

/// Who says what is known of a caller.
#[derive(Debug)]
pub enum Callers {
    /// The host itself.
    Live(Owners),
    /// A recording: what was answered for the record at hand.
    Recorded(Owner),
}

impl Callers {
    /// What is known at `now` of the caller of an attempt that began then.
    pub fn owner(&mut self, caller: &Caller, began: AttemptStart, now: Instant) -> Owner {
        match self {
            Self::Live(owners) => owners.of(caller, began, now),
            Self::Recorded(owner) => owner.clone(),
        }
    }
}

/// Finds out about the callers of connect, and remembers it for a while.
#[derive(Debug)]
pub struct Owners {
    exes: Exes,
    cgroups: Cgroups,
}

impl Default for Owners {
    fn default() -> Self {
        Self::new()
    }
}

impl Owners {
    /// Knows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            exes: Exes::new(),
            cgroups: Cgroups::open(),
        }
    }

    /// What is known at `now` of the caller of an attempt that began then. What is gone
    /// stays unknown.
    pub fn of(&mut self, caller: &Caller, began: AttemptStart, now: Instant) -> Owner {
        let cgroup = caller.cgroup_id.and_then(|id| self.cgroups.path(id, now));
        Owner {
            exe: self.exes.path(caller, began, now),
            container: cgroup.as_deref().and_then(cgroup::container),
            cgroup,
        }
    }
}
