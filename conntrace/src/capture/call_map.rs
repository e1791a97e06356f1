//! Counts calls of connect and bind whose return no program saw.

use std::{io::ErrorKind, time::Duration};

use aya::maps::{HashMap, MapData, MapError};
use conntrace_common::calls::CALL_SIZE;

use crate::record::clock;

/// Age at which a pending call counts as missed. A call takes microseconds, plus the wait for
/// its socket's lock, until it returns or opens an attempt.
const AGE_MAX: Duration = Duration::from_secs(10);

/// Map of pending system calls by thread, as the programs keep them. The thread's next call would
/// detect a missed return. A thread that makes no other call would occupy its map entry forever, so
/// old entries are removed here.
pub(super) struct PendingCalls {
    map: HashMap<MapData, u64, [u64; CALL_SIZE / 8]>,
    age_max: Duration,
    missed: u64,
}

impl PendingCalls {
    pub(super) fn new(map: HashMap<MapData, u64, [u64; CALL_SIZE / 8]>) -> Self {
        Self {
            map,
            age_max: AGE_MAX,
            missed: 0,
        }
    }

    /// Treats every pending call as missed, once the programs are detached.
    pub(super) fn expire_all(&mut self) {
        self.age_max = Duration::ZERO;
    }

    /// Removes the missed calls and returns their total since the start.
    ///
    /// # Errors
    /// When the kernel refuses to read the map or to remove from it.
    pub(super) fn missed(&mut self) -> Result<u64, MapError> {
        let now_ns = clock::boot_ns();
        let age_max = self.age_max;
        let is_expired = |call: &[u64; CALL_SIZE / 8]| {
            let started_ns = call.first().copied().unwrap_or(now_ns);
            Duration::from_nanos(now_ns.saturating_sub(started_ns)) >= age_max
        };
        let kept = self.map.iter().filter_map(Result::ok);
        let expired: Vec<u64> = kept
            .filter(|(_, call)| is_expired(call))
            .map(|(thread, _)| thread)
            .collect();
        for thread in expired {
            if self.remove(thread)? {
                self.missed += 1;
            }
        }
        Ok(self.missed)
    }

    /// Removes a call. Returns false if it has returned in the meantime, or if its thread's next
    /// call has already counted it.
    fn remove(&mut self, thread: u64) -> Result<bool, MapError> {
        match self.map.remove(&thread) {
            Ok(()) => Ok(true),
            Err(MapError::SyscallError(error)) if error.io_error.kind() == ErrorKind::NotFound => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}
