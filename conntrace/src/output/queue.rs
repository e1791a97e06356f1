//! Bytes that wait for the writer: bounded, and the worker never waits for room.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::sys;

/// Most bytes of lines that wait for the writer: some 27,000 lines of a storm of
/// refusals.
pub(super) const WAITING_MAX: usize = 32 << 20;
/// Bytes beyond that which lines about tracing itself may take.
pub(super) const RESERVE: usize = 1 << 20;
/// Most bytes that are written together.
const CHUNK_LEN: usize = 256 << 10;
/// Memory is given back to the system once this many bytes of a backlog are written.
const BACKLOG: usize = 1 << 20;

/// Whole lines.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    /// The lines, each with its line feed.
    pub(super) bytes: Vec<u8>,
    /// Number of lines.
    pub(super) lines: u64,
}

/// Work for the writer.
#[derive(Debug)]
pub(super) enum WriterTask {
    /// Lines to write.
    Write(Chunk),
    /// The destination is to be opened anew.
    Reopen,
}

/// End of a pause of the writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pause {
    /// The time has passed.
    Over,
    /// The destination is to be opened anew.
    Reopen,
    /// No more lines will come.
    Closed,
}

#[derive(Debug, Default)]
struct QueueState {
    chunks: VecDeque<Chunk>,
    /// Bytes in `chunks` and with the writer.
    waiting: usize,
    /// Lines in `chunks` and with the writer.
    lines: u64,
    /// Most bytes that waited since memory was last given back.
    peak: usize,
    reopen: bool,
    closed: bool,
    /// The writer has ended.
    abandoned: bool,
}

/// Lines on their way from the worker to the writer.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<QueueState>,
    changed: Condvar,
}

impl Queue {
    /// Takes a copy of these lines if no more than `waiting_max` bytes then wait.
    pub(super) fn push(&self, batch: &Chunk, waiting_max: usize) -> bool {
        let mut state = self.lock();
        let waiting = state.waiting + batch.bytes.len();
        if waiting > waiting_max || state.abandoned {
            return false;
        }
        state.waiting = waiting;
        state.lines += batch.lines;
        state.peak = state.peak.max(waiting);
        match state.chunks.back_mut() {
            Some(last) if last.bytes.len() + batch.bytes.len() <= CHUNK_LEN => {
                last.bytes.extend_from_slice(&batch.bytes);
                last.lines += batch.lines;
            }
            Some(_) | None => state.chunks.push_back(Chunk {
                bytes: batch.bytes.clone(),
                lines: batch.lines,
            }),
        }
        self.changed.notify_all();
        true
    }

    /// Returns true if this many more bytes may wait.
    pub(super) fn has_room(&self, len: usize) -> bool {
        self.lock().waiting + len <= WAITING_MAX
    }

    /// No more lines will come.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Waits for work; `None` once the queue is closed and empty. The writer is done with the
    /// chunk `written`.
    pub(super) fn next(&self, written: &Chunk) -> Option<WriterTask> {
        let mut state = self.lock();
        state.waiting = state.waiting.saturating_sub(written.bytes.len());
        state.lines = state.lines.saturating_sub(written.lines);
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

    /// Waits this long before a failed write is tried again.
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

    /// The writer ends: what waits is not written, and nothing is taken any more. Returns
    /// the number of lines.
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

/// The writer as another thread sees it.
#[derive(Debug, Clone)]
pub struct Progress(pub(super) Arc<Queue>);

impl Progress {
    /// Has the destination opened anew between two lines, if it is a file with a path. This
    /// does not wait for it.
    pub fn reopen(&self) {
        self.0.lock().reopen = true;
        self.0.changed.notify_all();
    }

    /// Number of bytes, and of lines, that are not written yet.
    #[must_use]
    pub fn waiting(&self) -> (usize, u64) {
        let state = self.0.lock();
        (state.waiting, state.lines)
    }
}
