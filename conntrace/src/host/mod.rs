//! The only code that queries the host: /proc, sysctls, the cgroup filesystem, `sock_diag`,
//! rtnetlink and nftables.

mod answer_cache;
mod attention;
mod bpf_programs;
mod cache;
mod inspector;
mod inspectors;
mod netlink;
mod netns;
mod pool;
mod port_usage;
mod procfs;

use std::{sync::Arc, time::Instant};

pub(crate) use answer_cache::AnswerCache;
pub use answer_cache::{Lookup, RecordedAnswer};
pub(crate) use cache::BoundedMap;
pub(crate) use inspectors::{Inspectors, LookAnswer};
use jiff::Timestamp;
pub use netlink::{nftables::ended_by as firewall_ended_by, route};
pub(crate) use netns::AttemptRef;
pub(crate) use pool::Share;
pub(crate) use port_usage::{PortScan, PortScanResult, ScannedPorts};

pub(crate) use self::procfs::exe::{ExeKey, ExeLookup, ExeRequest, exe_key};
use self::procfs::{cgroup::Cgroups, exe::Exes};
use crate::{
    output::event::{HOST_JSON_MAX, Owner},
    record::{Caller, clock::WallClock, sanitize},
    sys::proc_file,
};

/// Returns this host's name (`uname -n`).
#[must_use]
pub fn host_name() -> Arc<str> {
    let name = proc_file::read("/proc/sys/kernel/hostname").unwrap_or_default();
    sanitize::bounded(name.trim_ascii_end(), HOST_JSON_MAX).into()
}

/// Start time of an attempt.
#[derive(Debug, Clone, Copy)]
pub struct AttemptStart {
    boot_ns: u64,
    wall: Timestamp,
}

impl AttemptStart {
    /// Converts a `CLOCK_BOOTTIME` time in nanoseconds.
    #[must_use]
    pub fn new(boot_ns: u64, clock: &WallClock) -> Self {
        Self {
            boot_ns,
            wall: clock.at(boot_ns),
        }
    }
}

/// Source of information about callers.
#[derive(Debug)]
pub enum Callers {
    /// Queries of this host.
    Live(Owners),
    /// The owner in the recording, for the record at hand.
    Recorded(Owner),
}

impl Callers {
    /// Returns the owner of an attempt that began at `began`, as known at `now`, and the look that
    /// tells its executable, if one is needed.
    pub(crate) fn owner(
        &mut self,
        caller: &Caller,
        began: AttemptStart,
        now: Instant,
    ) -> (Owner, Option<Box<ExeRequest>>) {
        match self {
            Self::Live(owners) => owners.of(caller, began, now),
            Self::Recorded(owner) => (owner.clone(), None),
        }
    }

    /// Takes the result of a look.
    pub(crate) fn looked(&mut self, key: ExeKey, lookup: ExeLookup, now: Instant) {
        match self {
            Self::Live(owners) => owners.exes.put(key, lookup, now),
            Self::Recorded(_) => {}
        }
    }

    /// Returns the executable's path that a look has told; `None` if no look serves.
    pub(crate) fn exe(&mut self, request: &ExeRequest, now: Instant) -> Option<Option<Arc<str>>> {
        match self {
            Self::Live(owners) => owners.exes.known(request, now),
            Self::Recorded(_) => None,
        }
    }

    /// Returns the path of a cgroup; `None` if it no longer exists, and in a replay.
    pub(crate) fn cgroup(&mut self, id: u64, now: Instant) -> Option<Arc<str>> {
        match self {
            Self::Live(owners) => owners.cgroups.find(id, now).map(|it| it.path),
            Self::Recorded(_) => None,
        }
    }
}

/// Queries and caches the executables and cgroups of callers.
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
    /// Creates empty caches and opens the cgroup filesystem.
    #[must_use]
    pub fn new() -> Self {
        Self {
            exes: Exes::new(),
            cgroups: Cgroups::open(),
        }
    }

    /// Returns the owner of an attempt that began at `began`, as known at `now`, and the look that
    /// tells its executable, if one is needed. Facts about an exited process remain unknown.
    fn of(
        &mut self,
        caller: &Caller,
        began: AttemptStart,
        now: Instant,
    ) -> (Owner, Option<Box<ExeRequest>>) {
        let cgroup = caller.cgroup_id.and_then(|id| self.cgroups.find(id, now));
        let (exe, request) = match self.exes.path(caller, began, now) {
            Ok(exe) => (exe, None),
            Err(request) => (None, Some(request)),
        };
        let owner = Owner {
            exe,
            container: cgroup.as_ref().and_then(|it| it.container.clone()),
            cgroup: cgroup.map(|it| it.path),
        };
        (owner, request)
    }
}
