//! Reads when the kernel side could not tell answers of remote hosts.

use std::{io, os::fd::BorrowedFd, sync::Arc};

use conntrace_common::{
    hash::HashSecret,
    host_key::{HostKey, SETS},
};

use super::SharedPages;

/// View of the times at which answers were missed; without the kernel side there are none.
#[derive(Debug, Clone)]
pub struct MissedAnswers {
    secret: HashSecret,
    times: Option<Arc<SharedPages>>,
}

impl MissedAnswers {
    /// Creates a view without times.
    #[must_use]
    pub fn none() -> Self {
        Self {
            secret: HashSecret::new([0; 3]),
            times: None,
        }
    }

    /// Maps the times, which the programs write with this key of the hash.
    ///
    /// # Errors
    /// When the map cannot be mapped, or memory is short.
    pub(crate) fn of(map: BorrowedFd<'_>, secret: HashSecret) -> io::Result<Self> {
        let times = SharedPages::of(map, SETS as usize * size_of::<u64>())?;
        Ok(Self {
            secret,
            times: Some(Arc::new(times)),
        })
    }

    /// Returns the key of the hash of addresses.
    #[must_use]
    pub fn secret(&self) -> HashSecret {
        self.secret
    }

    /// Returns the last time at which an answer of this host or network may have been missed, in
    /// nanoseconds of `CLOCK_BOOTTIME`; 0 if none was.
    #[must_use]
    pub fn latest_ns(&self, host: &HostKey) -> u64 {
        let index = host.set(self.secret) as usize;
        let times = self.times.as_ref();
        times.and_then(|times| times.word(index)).unwrap_or(0)
    }
}
