//! Memory of BPF maps that the kernel shares with the agent.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence},
};

/// Pages of a BPF map.
#[derive(Debug)]
pub(crate) struct SharedPages {
    pages: NonNull<u8>,
    len: usize,
}

// SAFETY: the pages are only accessed atomically, and stay mapped until the value is dropped.
unsafe impl Send for SharedPages {}
// SAFETY: the pages are only accessed atomically.
unsafe impl Sync for SharedPages {}

impl SharedPages {
    /// Maps the first `len` bytes of a map, read-only.
    ///
    /// # Errors
    /// When the map cannot be mapped (`BPF_F_MMAPABLE`), or memory is short.
    pub(crate) fn of(map: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        Self::map(map, len, libc::PROT_READ)
    }

    fn map(map: BorrowedFd<'_>, len: usize, protection: libc::c_int) -> io::Result<Self> {
        // SAFETY: the kernel chooses the address, so that no existing mapping is replaced.
        let pages = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                protection,
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

/// Mark in a BPF map of one word that the reader of the ring sleeps.
#[derive(Debug)]
pub(crate) struct ReaderState(SharedPages);

impl ReaderState {
    /// Maps the word.
    ///
    /// # Errors
    /// When the map cannot be mapped (`BPF_F_MMAPABLE`), or memory is short.
    pub(crate) fn of(map: BorrowedFd<'_>) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        SharedPages::map(map, size_of::<u64>(), protection).map(Self)
    }

    /// Says if the reader sleeps until a record wakes it. It must look for a record afterwards, as
    /// `poll` does (`bpf_ringbuf_poll`).
    pub(crate) fn set(&self, sleeps: bool) {
        // SAFETY: the word is mapped for writing, aligned, and changed only as a whole.
        let word = unsafe { self.0.pages.cast::<AtomicU64>().as_ref() };
        word.store(u64::from(sleeps), Ordering::Relaxed);
        // A record that is reserved before the reader looks is seen there; what comes later sees the
        // word, but for the first (`is_to_be_woken` in the programs).
        fence(Ordering::SeqCst);
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
