//! Memory of BPF maps that the kernel shares with the agent, read-only.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

/// Pages of a BPF map, mapped read-only.
#[derive(Debug)]
pub(crate) struct SharedPages {
    pages: NonNull<u8>,
    len: usize,
}

// SAFETY: the pages are only read, by atomic loads, and stay mapped until the value is dropped.
unsafe impl Send for SharedPages {}
// SAFETY: the pages are only read, by atomic loads.
unsafe impl Sync for SharedPages {}

impl SharedPages {
    /// Maps the first `len` bytes of a map.
    ///
    /// # Errors
    /// When the map cannot be mapped (`BPF_F_MMAPABLE`), or memory is short.
    pub(crate) fn of(map: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        // SAFETY: the kernel chooses the address, so that no existing mapping is replaced.
        let pages = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        if pages == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let pages = NonNull::new(pages.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { pages, len })
    }

    /// Loads the 64-bit word with this index; `None` beyond the end.
    pub(crate) fn word(&self, index: usize) -> Option<u64> {
        let words = self.len / size_of::<u64>();
        (index < words).then(|| {
            // SAFETY: the word is within the pages, aligned, and changed only as a whole.
            let word = unsafe { self.pages.cast::<AtomicU64>().add(index).as_ref() };
            word.load(Ordering::Acquire)
        })
    }
}

impl Drop for SharedPages {
    fn drop(&mut self) {
        // SAFETY: this value owns the pages, and no reference to them exists.
        unsafe {
            libc::munmap(self.pages.as_ptr().cast(), self.len);
        }
    }
}

/// Positions in a BPF ring buffer: `consumer_pos` and `producer_pos` of `struct bpf_ringbuf`, a
/// page each.
#[derive(Debug)]
pub(crate) struct RingPositions {
    pages: SharedPages,
    page_size: usize,
}

impl RingPositions {
    /// Maps the two pages.
    ///
    /// # Errors
    /// When the descriptor is not a ring buffer, or memory is short.
    pub(crate) fn of(ring: BorrowedFd<'_>) -> io::Result<Self> {
        // SAFETY: `sysconf` takes no pointer.
        let page_size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        let page_size = usize::try_from(page_size).map_err(io::Error::other)?;
        let pages = SharedPages::of(ring, 2 * page_size)?;
        Ok(Self { pages, page_size })
    }

    /// Returns the number of unread bytes, including those only reserved.
    pub(crate) fn waiting(&self) -> usize {
        let position = |page: usize| {
            // SAFETY: each page begins with an `unsigned long`, which the kernel and the reader
            // change atomically.
            let position = unsafe {
                let at = self.pages.pages.add(page * self.page_size);
                at.cast::<AtomicUsize>().as_ref()
            };
            position.load(Ordering::Acquire)
        };
        // Loaded first, because the consumer never passes the producer.
        let consumer = position(0);
        position(1).wrapping_sub(consumer)
    }
}
