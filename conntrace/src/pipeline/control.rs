use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use nix::sys::eventfd::{EfdFlags, EventFd};

/// Shared state of the worker thread and the main thread.
pub(crate) struct Control {
    /// Readable once there is a reason to stop.
    stopped: EventFd,
    reason: Mutex<Option<&'static str>>,
    turns: AtomicU64,
    status: Mutex<Option<String>>,
}

impl Control {
    /// Nothing told yet.
    ///
    /// # Errors
    /// When there are no more descriptors.
    pub(super) fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self {
            stopped: EventFd::from_flags(flags)?,
            reason: Mutex::default(),
            turns: AtomicU64::new(0),
            status: Mutex::default(),
        })
    }

    /// Has the reader stop; the first reason stands.
    pub(super) fn stop(&self, reason: &'static str) {
        lock(&self.reason).get_or_insert(reason);
        // It fails only where as much was written before.
        let _ = self.stopped.write(1);
    }

    /// Reason to stop, once there is one.
    pub(super) fn reason(&self) -> Option<&'static str> {
        *lock(&self.reason)
    }

    /// Counts a round of the worker thread.
    pub(super) fn turned(&self) {
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    /// Number of rounds that the worker thread has made: proof that it is not stuck.
    pub(crate) fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// A sentence about how it goes, for the service manager.
    pub(super) fn tell_status(&self, status: String) {
        *lock(&self.status) = Some(status);
    }

    /// The last such sentence that was not taken yet.
    pub(crate) fn take_status(&self) -> Option<String> {
        lock(&self.status).take()
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stopped.as_fd()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
