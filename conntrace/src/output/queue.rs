//! Bounded queue of rendered lines; the worker never waits for room in it.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::sys;

/// Maximum bytes in the queue: about 27,000 lines during a storm of refusals.
pub(super) const WAITING_MAX: usize = 32 << 20;
/// Additional bytes for lines about tracing itself.
pub(super) const RESERVE: usize = 1 << 20;
/// Number of bytes from which no more lines are added to those that wait.
const CHUNK_LEN: usize = 64 << 10;
/// Maximum bytes of lines that are copied to those that wait. A larger batch is moved.
const COPIED_MAX: usize = 4 << 10;
/// Backlog after which freed memory is returned to the system, in bytes.
const BACKLOG: usize = 1 << 20;

/// Complete lines.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    /// Lines, each with its line feed.
    pub(super) bytes: Vec<u8>,
    /// Number of lines.
    pub(super) lines: u64,
}

impl Chunk {
    /// Removes the lines, and keeps their buffer.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.lines = 0;
    }
}

/// Task for the writer.
#[derive(Debug)]
pub(super) enum WriterTask {
    /// Write these lines.
    Write(Chunk),
    /// Reopen the destination.
    Reopen,
}

/// Reason for the end of a writer's pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pause {
    /// The time has passed.
    Over,
    /// The destination is to be reopened.
    Reopen,
    /// The queue is closed: no more lines follow.
    Closed,
}

#[derive(Debug, Default)]
struct QueueState {
    chunks: VecDeque<Chunk>,
    /// Bytes in `chunks`, and those being written.
    waiting: usize,
    /// Lines in `chunks`, and those being written.
    lines: u64,
    /// Maximum of `waiting` since memory was last returned to the system.
    peak: usize,
    /// Empty buffer of lines that were written, for the next ones.
    spare: Vec<u8>,
    reopen: bool,
    closed: bool,
    /// True once the writer has ended.
    abandoned: bool,
}

/// Queue from the worker to the writer.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<QueueState>,
    changed: Condvar,
}

impl Queue {
    /// Moves these lines into the queue. Returns false if it would exceed `waiting_max` bytes.
    pub(super) fn push(&self, batch: &mut Chunk, waiting_max: usize) -> bool {
        let mut state = self.lock();
        let waiting = state.waiting + batch.bytes.len();
        if waiting > waiting_max || state.abandoned {
            return false;
        }
        state.waiting = waiting;
        state.lines += batch.lines;
        state.peak = state.peak.max(waiting);
        let is_behind = !state.chunks.is_empty();
        match state.chunks.back_mut() {
            Some(last) if batch.bytes.len() <= COPIED_MAX && last.bytes.len() <= CHUNK_LEN => {
                last.bytes.extend_from_slice(&batch.bytes);
                last.lines += batch.lines;
            }
            Some(_) | None => {
                let bytes = std::mem::take(&mut state.spare);
                let mut chunk = std::mem::replace(batch, Chunk { bytes, lines: 0 });
                if is_behind {
                    chunk.bytes.shrink_to_fit();
                }
                state.chunks.push_back(chunk);
            }
        }
        batch.clear();
        self.changed.notify_all();
        true
    }

    /// Returns true if the queue has room for this many more bytes.
    pub(super) fn has_room(&self, len: usize) -> bool {
        self.lock().waiting + len <= WAITING_MAX
    }

    /// Closes the queue: no more lines follow.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Waits for a task; `None` once the queue is closed and empty. The chunk `written` no longer
    /// counts as waiting, and is emptied.
    pub(super) fn next(&self, written: &mut Chunk) -> Option<WriterTask> {
        let mut state = self.lock();
        state.waiting = state.waiting.saturating_sub(written.bytes.len());
        state.lines = state.lines.saturating_sub(written.lines);
        written.clear();
        if state.spare.capacity() < written.bytes.capacity() {
            state.spare = std::mem::take(&mut written.bytes);
        }
        loop {
            if state.reopen {
                state.reopen = false;
                return Some(WriterTask::Reopen);
            }
            if let Some(chunk) = state.chunks.pop_front() {
                return Some(WriterTask::Write(chunk));
            }
            if state.closed {
                return None;
            }
            if state.peak > BACKLOG {
                state.peak = 0;
                state.chunks = VecDeque::new();
                state.spare = Vec::new();
                drop(state);
                sys::release_freed_memory();
                state = self.lock();
                continue;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits before a failed write is retried.
    pub(super) fn pause(&self, at_most: Duration) -> Pause {
        let nothing_else = |state: &mut QueueState| !state.reopen && !state.closed;
        let waited = self
            .changed
            .wait_timeout_while(self.lock(), at_most, nothing_else);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if state.reopen {
            state.reopen = false;
            Pause::Reopen
        } else if state.closed {
            Pause::Closed
        } else {
            Pause::Over
        }
    }

    /// Empties the queue and rejects further lines, because the writer ends. Returns the number of
    /// lines dropped.
    pub(super) fn abandon(&self) -> u64 {
        let mut state = self.lock();
        state.abandoned = true;
        let chunks = std::mem::take(&mut state.chunks);
        chunks.iter().map(|chunk| chunk.lines).sum()
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Handle to the writer for another thread.
#[derive(Debug, Clone)]
pub struct Progress(pub(super) Arc<Queue>);

impl Progress {
    /// Requests that the destination is reopened between two lines, if it has a path. Does not
    /// wait.
    pub fn reopen(&self) {
        self.0.lock().reopen = true;
        self.0.changed.notify_all();
    }

    /// Returns the number of bytes and of lines that are not written yet.
    #[must_use]
    pub fn waiting(&self) -> (usize, u64) {
        let state = self.0.lock();
        (state.waiting, state.lines)
    }
}
