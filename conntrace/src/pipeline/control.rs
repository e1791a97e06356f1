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
    /// Becomes readable once there is a reason to stop.
    stopped: EventFd,
    reason: Mutex<Option<&'static str>>,
    rounds: AtomicU64,
    status: Mutex<Option<String>>,
}

impl Control {
    /// Creates the state without a reason to stop.
    ///
    /// # Errors
    /// Fails when no file descriptor is available.
    pub(super) fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self {
            stopped: EventFd::from_flags(flags)?,
            reason: Mutex::default(),
            rounds: AtomicU64::new(0),
            status: Mutex::default(),
        })
    }

    /// Tells the reader to stop; the first reason counts.
    pub(super) fn stop(&self, reason: &'static str) {
        lock(&self.reason).get_or_insert(reason);
        // Fails only if the counter is full, and then it is readable.
        let _ = self.stopped.write(1);
    }

    /// Returns the reason to stop, if there is one.
    pub(super) fn reason(&self) -> Option<&'static str> {
        *lock(&self.reason)
    }

    /// Counts a round of the worker thread.
    pub(super) fn count_round(&self) {
        self.rounds.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of rounds of the worker thread: proof that it is not stuck.
    pub(crate) fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::Relaxed)
    }

    /// Sets the status text for the service manager.
    pub(super) fn set_status(&self, status: String) {
        *lock(&self.status) = Some(status);
    }

    /// Returns the latest status text, if it was not taken before.
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
