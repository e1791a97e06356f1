//! Calls of connect and bind whose return no program saw.

use std::{io::ErrorKind, time::Duration};

use aya::maps::{HashMap, MapData, MapError};
use conntrace_common::calls::CALL_SIZE;

use crate::record::clock;

/// Longer than a call takes before it returns or has opened an attempt: microseconds, and
/// what it waits for its socket's lock.
const LONGEST: Duration = Duration::from_secs(10);

/// The calls that the programs keep, by thread. The kernel leaves out a program at a
/// function's return where all instances of that probe are taken (`pre_handler_kretprobe`,
/// `nmissed`), which it counts where nobody can read it. The thread's next call would
/// count it, but there may be none, and the place in the map would be taken for good.
pub(super) struct PendingCalls {
    map: HashMap<MapData, u64, [u64; CALL_SIZE / 8]>,
    longest: Duration,
    left: u64,
}

impl PendingCalls {
    pub(super) fn new(map: HashMap<MapData, u64, [u64; CALL_SIZE / 8]>) -> Self {
        Self {
            map,
            longest: LONGEST,
            left: 0,
        }
    }

    /// No program runs any more: what is kept will see no return.
    pub(super) fn none_returns(&mut self) {
        self.longest = Duration::ZERO;
    }

    /// How many were left behind until now. Each is let go.
    ///
    /// # Errors
    /// When the kernel refuses to read the map or to remove from it.
    pub(super) fn left(&mut self) -> Result<u64, MapError> {
        let now_ns = clock::boot_ns();
        let longest = self.longest;
        let is_left = |call: &[u64; CALL_SIZE / 8]| {
            let started_ns = call.first().copied().unwrap_or(now_ns);
            Duration::from_nanos(now_ns.saturating_sub(started_ns)) >= longest
        };
        let kept = self.map.iter().filter_map(Result::ok);
        let left: Vec<u64> = kept
            .filter(|(_, call)| is_left(call))
            .map(|(thread, _)| thread)
            .collect();
        for thread in left {
            if self.let_go(thread)? {
                self.left += 1;
            }
        }
        Ok(self.left)
    }

    /// `false` if it returned after all, or its thread's next call has counted it.
    fn let_go(&mut self, thread: u64) -> Result<bool, MapError> {
        match self.map.remove(&thread) {
            Ok(()) => Ok(true),
            Err(MapError::SyscallError(error)) if error.io_error.kind() == ErrorKind::NotFound => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}
