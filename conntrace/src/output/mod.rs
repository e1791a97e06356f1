//! Formats of the lines, and their delivery.
//!
//! ```text
//! Output (worker) -> bounded queue of bytes -> Writer (a thread) -> Destination
//! ```

mod destination;
pub mod event;
mod json;
mod known_cases;
pub(crate) mod message;
mod queue;
pub(crate) mod rate_limit;
pub mod stderr;
mod template;
mod text;
pub(crate) mod wrap;
mod writer;

use std::{
    io::{self, IsTerminal as _, Write},
    sync::Arc,
    time::Duration,
};

use clap::ValueEnum;

pub use destination::{Destination, OpenError};
use jiff::Timestamp;
pub use json::Json;
pub use queue::Progress;
use queue::{Chunk, Queue};
pub use text::Text;
pub use writer::{WriteError, Writer};

use self::event::{AttemptLine, LINE_LEN_MAX, Line};

/// Size from which a batch is handed over while more lines follow, in bytes.
const BATCH_LEN: usize = 64 << 10;

/// Renderer of lines in one format.
pub trait Format: Send {
    /// Appends the line to `out`, with its line feed.
    ///
    /// # Errors
    /// Fails when the line cannot be serialised; `out` may then hold a part of it.
    fn render(&mut self, line: &Line, out: &mut Vec<u8>) -> io::Result<()>;

    /// Appends the line of an attempt, with its line feed. It may be written from what is kept of
    /// an equal one.
    ///
    /// # Errors
    /// Fails when the line cannot be serialised; `out` may then hold a part of it.
    fn attempt(&mut self, attempt: &AttemptLine, out: &mut Vec<u8>) -> io::Result<()> {
        self.render(&attempt.line(), out)
    }

    /// Appends held-back lines that are due at `now`. Returns the time until more are due; `None`
    /// if nothing is held back.
    fn idle(&mut self, now: Timestamp, out: &mut Vec<u8>) -> Option<Duration> {
        let _ = (now, out);
        None
    }

    /// Returns the number of lines that are held back completely.
    fn held(&self) -> u64 {
        0
    }

    /// Appends everything held back; no line may follow.
    fn finish(&mut self, out: &mut Vec<u8>) {
        let _ = out;
    }
}

/// Choice of a format, as an option names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FormatArg {
    /// JSON, an object per line.
    Json,
    /// Aligned text for a person.
    Text,
}

impl FormatArg {
    /// Returns the requested format, or the one that suits stdout.
    #[must_use]
    pub fn or_suitable(asked: Option<Self>) -> Self {
        asked.unwrap_or_else(|| {
            if io::stdout().is_terminal() {
                Self::Text
            } else {
                Self::Json
            }
        })
    }

    /// Returns the renderer of this format.
    #[must_use]
    pub fn renderer(self) -> Box<dyn Format> {
        match self {
            Self::Json => Box::new(Json::default()),
            Self::Text => Box::new(Text::for_stdout()),
        }
    }
}

/// The worker's end of the delivery: renders lines and hands them over in batches.
pub struct Output {
    format: Box<dyn Format>,
    batch: Chunk,
    delivery: Delivery,
    undelivered: u64,
}

/// Delivery of rendered lines.
enum Delivery {
    /// Written by the worker itself, which waits.
    Direct(Box<dyn Write + Send>),
    /// Written by another thread; lines that exceed the queue are counted.
    Queue(Arc<Queue>),
}

impl Output {
    /// Creates an output that writes to `out` and waits for it, as a replay can.
    pub fn direct(format: Box<dyn Format>, out: impl Write + Send + 'static) -> Self {
        Self::new(format, Delivery::Direct(Box::new(out)))
    }

    /// Creates an output that never waits, and the [`Writer`] that a thread must run.
    #[must_use]
    pub fn queued(format: Box<dyn Format>, destination: Destination) -> (Self, Writer) {
        let queue = Arc::new(Queue::default());
        let writer = Writer::new(Arc::clone(&queue), destination);
        (Self::new(format, Delivery::Queue(queue)), writer)
    }

    fn new(format: Box<dyn Format>, delivery: Delivery) -> Self {
        let batch = Chunk {
            bytes: Vec::with_capacity(BATCH_LEN + LINE_LEN_MAX),
            lines: 0,
        };
        Self {
            format,
            batch,
            delivery,
            undelivered: 0,
        }
    }

    /// Renders a line into the batch.
    pub fn write(&mut self, line: &Line) {
        self.render(|format, out| format.render(line, out));
    }

    /// Renders the line of an attempt into the batch.
    pub fn write_attempt(&mut self, attempt: &AttemptLine) {
        self.render(|format, out| format.attempt(attempt, out));
    }

    fn render(&mut self, render: impl FnOnce(&mut dyn Format, &mut Vec<u8>) -> io::Result<()>) {
        let (before, held) = (self.batch.bytes.len(), self.format.held());
        match render(&mut *self.format, &mut self.batch.bytes) {
            Ok(()) => self.count(held + 1),
            Err(error) => {
                log::error!("cannot render a line, which is dropped: {error}");
                self.batch.bytes.truncate(before);
                self.undelivered += 1;
            }
        }
    }

    /// Returns true if the batch is large enough to be handed over.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.batch.bytes.len() >= BATCH_LEN
    }

    /// Hands the batch over. If the queue is full, its lines are undelivered.
    ///
    /// # Errors
    /// Fails when a direct output cannot be written.
    pub fn hand_over(&mut self) -> io::Result<()> {
        self.hand_over_within(queue::WAITING_MAX)
    }

    fn hand_over_within(&mut self, waiting_max: usize) -> io::Result<()> {
        let done = match &mut self.delivery {
            _ if self.batch.bytes.is_empty() => Ok(()),
            Delivery::Direct(out) => out.write_all(&self.batch.bytes).and_then(|()| out.flush()),
            Delivery::Queue(queue) => {
                if !queue.push(&mut self.batch, waiting_max) {
                    self.undelivered += self.batch.lines;
                }
                Ok(())
            }
        };
        self.batch.clear();
        done
    }

    /// Writes a line about tracing itself and hands over everything so far. It may use a reserve if
    /// the queue is full.
    ///
    /// # Errors
    /// Fails when a direct output cannot be written.
    pub fn write_own(&mut self, line: &Line) -> io::Result<()> {
        self.hand_over()?;
        self.write(line);
        self.hand_over_within(queue::WAITING_MAX + queue::RESERVE)
    }

    /// Renders held-back lines that are due at `now`. Returns the time until more are due; `None`
    /// if nothing is held back.
    pub fn idle(&mut self, now: Timestamp) -> Option<Duration> {
        let held = self.format.held();
        let wait = self.format.idle(now, &mut self.batch.bytes);
        self.count(held);
        wait
    }

    /// Renders everything held back; no line may follow.
    pub fn finish(&mut self) {
        let held = self.format.held();
        self.format.finish(&mut self.batch.bytes);
        self.count(held);
    }

    /// Adds to the batch's count: `lines`, minus the lines still held back.
    fn count(&mut self, lines: u64) {
        self.batch.lines += lines.saturating_sub(self.format.held());
    }

    /// Returns true if the queue has room for a line of any length.
    #[must_use]
    pub fn has_room(&self) -> bool {
        match &self.delivery {
            Delivery::Direct(_) => true,
            Delivery::Queue(queue) => queue.has_room(self.batch.bytes.len() + LINE_LEN_MAX),
        }
    }

    /// Returns the number of lines that were rendered but will not be written.
    #[must_use]
    pub fn undelivered(&self) -> u64 {
        self.undelivered
    }
}

/// Closes the queue: the writer ends after writing its rest.
impl Drop for Output {
    fn drop(&mut self) {
        if let Delivery::Queue(queue) = &self.delivery {
            queue.close();
        }
    }
}

/// Returns true if a write failed because the reader has gone, which is a clean stop.
#[must_use]
pub fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

#[cfg(test)]
mod tests;
