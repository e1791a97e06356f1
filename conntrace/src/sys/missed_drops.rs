//! Reads when the kernel side could not report a dropped packet.

use std::{io, os::fd::BorrowedFd, sync::Arc};

use conntrace_common::drops::{ADDRS, addr_hash};

use super::SharedPages;

/// View of the last times at which a dropped packet was not reported; without the kernel side there are
/// none.
#[derive(Debug, Clone, Default)]
pub struct MissedDrops(Option<Arc<SharedPages>>);

impl MissedDrops {
    /// Maps the times.
    ///
    /// # Errors
    /// When the map cannot be mapped, or memory is short.
    pub(crate) fn of(map: BorrowedFd<'_>) -> io::Result<Self> {
        let time = SharedPages::of(map, ADDRS as usize * size_of::<u64>())?;
        Ok(Self(Some(Arc::new(time))))
    }

    /// Returns the last time at which a drop of this client may have been missed, in nanoseconds of
    /// `CLOCK_BOOTTIME`; 0 if none was. The address is v4-mapped for IPv4.
    #[must_use]
    pub fn latest_ns(&self, client: [u8; 16]) -> u64 {
        let [.., a, b, c, d] = client;
        let index = addr_hash(u32::from_ne_bytes([a, b, c, d])) as usize;
        let times = self.0.as_ref().and_then(|times| times.word(index));
        times.unwrap_or(0)
    }
}
