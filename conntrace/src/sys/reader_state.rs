//! Tells the kernel side when its reader sleeps.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering, fence},
};

/// Word of a BPF map that says if the reader of the ring sleeps.
#[derive(Debug)]
pub(crate) struct ReaderState(NonNull<AtomicU64>);

// SAFETY: the word is only accessed atomically, and stays mapped until the value is dropped.
unsafe impl Send for ReaderState {}

impl ReaderState {
    /// Maps the word, the only element of a map.
    ///
    /// # Errors
    /// When the map cannot be mapped (`BPF_F_MMAPABLE`), or memory is short.
    pub(crate) fn of(map: BorrowedFd<'_>) -> io::Result<Self> {
        // SAFETY: the kernel chooses the address, so that no existing mapping is replaced.
        let word = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size_of::<AtomicU64>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        if word == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let word = NonNull::new(word.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self(word))
    }

    /// Sets if the reader sleeps until a record wakes it. It must look for a record afterwards, as
    /// `poll` does (`bpf_ringbuf_poll`).
    pub(crate) fn set(&self, sleeps: bool) {
        // SAFETY: the word is mapped, aligned, and changed only as a whole.
        let word = unsafe { self.0.as_ref() };
        word.store(u64::from(sleeps), Ordering::Relaxed);
        // A record that is reserved before the reader looks is seen there; what comes later sees the
        // word, but for the first (`is_to_be_woken` in the programs).
        fence(Ordering::SeqCst);
    }
}

impl Drop for ReaderState {
    fn drop(&mut self) {
        // SAFETY: this value owns the mapping, and no reference to it exists.
        unsafe {
            libc::munmap(self.0.as_ptr().cast(), size_of::<AtomicU64>());
        }
    }
}
