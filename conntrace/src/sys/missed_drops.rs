//! Reads when the kernel side could not report a dropped packet.

use std::{io, os::fd::BorrowedFd, sync::Arc};

use super::SharedPages;

/// View of the last time at which a dropped packet was not reported; without the kernel side there is
/// none.
#[derive(Debug, Clone, Default)]
pub struct MissedDrops(Option<Arc<SharedPages>>);

impl MissedDrops {
    /// Maps the time.
    ///
    /// # Errors
    /// When the map cannot be mapped, or memory is short.
    pub(crate) fn of(map: BorrowedFd<'_>) -> io::Result<Self> {
        let time = SharedPages::of(map, size_of::<u64>())?;
        Ok(Self(Some(Arc::new(time))))
    }

    /// Returns the time in nanoseconds of `CLOCK_BOOTTIME`; 0 if no drop was missed.
    #[must_use]
    pub fn latest_ns(&self) -> u64 {
        let time = self.0.as_ref().and_then(|time| time.word(0));
        time.unwrap_or(0)
    }
}
