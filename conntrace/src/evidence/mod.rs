//! The only code that looks at the host: /proc, sysctls, the cgroup filesystem,
//! `sock_diag`, rtnetlink and nftables.

mod cache;
pub(crate) mod cgroup;
mod exe;
mod firewall;
mod helper;
mod known;
mod namespaces;
mod netlink;
mod port_rules;
mod port_use;
mod process;
mod programs;
mod proxy;
pub mod routes;
mod scout;
mod sockets;
mod sysctl;

use std::{sync::Arc, time::Instant};

pub use firewall::ended_by as firewall_ended_by;
use jiff::Timestamp;
pub(crate) use known::Known;
pub use known::{Found, Told};
pub(crate) use namespaces::About;
pub(crate) use port_use::{Look, Looked, PortScout, Uses};
pub(crate) use scout::{Scout, WAIT_MAX};

use self::{cgroup::Cgroups, exe::Exes};
use crate::{
    clock::WallClock,
    event::{HOST_JSON_MAX, Owner},
    proc_file, text,
    wire::Caller,
};

/// This host's name: `uname -n`.
#[must_use]
pub fn host_name() -> Arc<str> {
    let name = proc_file::read("/proc/sys/kernel/hostname").unwrap_or_default();
    text::bounded(name.trim_ascii_end(), HOST_JSON_MAX).into()
}

/// When an attempt began.
#[derive(Debug, Clone, Copy)]
pub struct Began {
    boot_ns: u64,
    wall: Timestamp,
}

impl Began {
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
    pub fn owner(&mut self, caller: &Caller, began: Began, now: Instant) -> Owner {
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
    pub fn of(&mut self, caller: &Caller, began: Began, now: Instant) -> Owner {
        let cgroup = caller.cgroup_id.and_then(|id| self.cgroups.path(id, now));
        Owner {
            exe: self.exes.path(caller, began, now),
            container: cgroup.as_deref().and_then(cgroup::container),
            cgroup,
        }
    }
}
