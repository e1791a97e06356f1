//! The only code that looks at the host: /proc and the cgroup filesystem.

mod cache;
pub(crate) mod cgroup;
mod exe;

use std::time::Instant;

use self::{cgroup::Cgroups, exe::Exes};
use crate::{event::Owner, wire::Caller};

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

    /// What is known of the caller at `now`. What is gone stays unknown.
    pub fn of(&mut self, caller: &Caller, now: Instant) -> Owner {
        let cgroup = self.cgroups.path(caller.cgroup_id, now);
        Owner {
            exe: self.exes.path(caller, now),
            container: cgroup
                .as_deref()
                .and_then(cgroup::container_id)
                .map(Into::into),
            cgroup,
        }
    }
}
