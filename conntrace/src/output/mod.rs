//! Formats of the lines, one per file, and the way out.
//!
//! ```text
//! Output (worker) -> bytes that wait, bounded -> Writer (a thread) -> Destination
//! ```

mod destination;
pub mod event;
mod json;
pub(crate) mod message;
mod queue;
pub(crate) mod rate_limit;
pub mod stderr;
mod text;
pub(crate) mod wrap;
mod writer;

use std::{io, io::Write, sync::Arc, time::Duration};

pub use destination::{Destination, OpenError};
use jiff::Timestamp;
pub use json::Json;
pub use queue::Progress;
use queue::{Chunk, Queue};
pub use text::Text;
pub use writer::{WriteError, Writer};

use self::event::{LINE_LEN_MAX, Line};

/// Rendered bytes that are handed over together, at least, while there are more to come.
const BATCH_LEN: usize = 64 << 10;

/// Renders lines.
pub trait Format: Send {
    /// Appends the line to `out`, its line feed included.
    ///
    /// # Errors
    /// When the line cannot be serialised; `out` may then hold a part of it.
    fn render(&mut self, line: &Line, out: &mut Vec<u8>) -> io::Result<()>;

    /// Appends what was held back of earlier lines and is due at `now`. Returns how long
    /// after that more is due, `None` when nothing is held back.
    fn idle(&mut self, now: Timestamp, out: &mut Vec<u8>) -> Option<Duration> {
        let _ = (now, out);
        None
    }

    /// Number of lines that are held back now, of which nothing was appended yet.
    fn held(&self) -> u64 {
        0
    }

    /// Appends all that was held back: no line follows.
    fn finish(&mut self, out: &mut Vec<u8>) {
        let _ = out;
    }
}

/// The worker's end of the way out: renders lines, and hands them over in batches.
pub struct Output {
    format: Box<dyn Format>,
    batch: Chunk,
    way: Delivery,
    undelivered: u64,
}

/// Way from the worker to whoever reads the lines.
enum Delivery {
    /// Written by the worker itself, which waits.
    Direct(Box<dyn Write + Send>),
    /// Written by another thread; what does not fit into the queue is counted.
    Queue(Arc<Queue>),
}

impl Output {
    /// Writes to `out` and waits for it: for a replay, which has nothing else to do.
    pub fn direct(format: Box<dyn Format>, out: impl Write + Send + 'static) -> Self {
        Self::new(format, Delivery::Direct(Box::new(out)))
    }

    /// Hands over to a [`Writer`], which a thread is to run, and waits for nobody.
    #[must_use]
    pub fn queued(format: Box<dyn Format>, destination: Destination) -> (Self, Writer) {
        let queue = Arc::new(Queue::default());
        let writer = Writer::new(Arc::clone(&queue), destination);
        (Self::new(format, Delivery::Queue(queue)), writer)
    }

    fn new(format: Box<dyn Format>, way: Delivery) -> Self {
        let batch = Chunk {
            bytes: Vec::with_capacity(BATCH_LEN + LINE_LEN_MAX),
            lines: 0,
        };
        Self {
            format,
            batch,
            way,
            undelivered: 0,
        }
    }

    /// Renders a line into the batch.
    pub fn write(&mut self, line: &Line) {
        let (before, held) = (self.batch.bytes.len(), self.format.held());
        match self.format.render(line, &mut self.batch.bytes) {
            Ok(()) => self.count(held + 1),
            Err(error) => {
                log::error!("a line cannot be rendered: {error}");
                self.batch.bytes.truncate(before);
                self.undelivered += 1;
            }
        }
    }

    /// Returns true once the batch is large enough to be handed over.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.batch.bytes.len() >= BATCH_LEN
    }

    /// Hands the batch over. Where the queue has no room its lines are undelivered.
    ///
    /// # Errors
    /// When a direct output cannot be written.
    pub fn hand_over(&mut self) -> io::Result<()> {
        self.hand_over_within(queue::WAITING_MAX)
    }

    fn hand_over_within(&mut self, waiting_max: usize) -> io::Result<()> {
        let done = match &mut self.way {
            _ if self.batch.bytes.is_empty() => Ok(()),
            Delivery::Direct(out) => out.write_all(&self.batch.bytes).and_then(|()| out.flush()),
            Delivery::Queue(queue) => {
                if !queue.push(&self.batch, waiting_max) {
                    self.undelivered += self.batch.lines;
                }
                Ok(())
            }
        };
        self.batch.bytes.clear();
        self.batch.lines = 0;
        done
    }

    /// Writes a line about tracing itself, and hands it over with what precedes it. It has
    /// some room of its own where the queue is full.
    ///
    /// # Errors
    /// When a direct output cannot be written.
    pub fn write_own(&mut self, line: &Line) -> io::Result<()> {
        self.hand_over()?;
        self.write(line);
        self.hand_over_within(queue::WAITING_MAX + queue::RESERVE)
    }

    /// Renders what the format held back of earlier lines and is due at `now`. Returns how long
    /// after that more is due, `None` when nothing is held back.
    pub fn idle(&mut self, now: Timestamp) -> Option<Duration> {
        let held = self.format.held();
        let wait = self.format.idle(now, &mut self.batch.bytes);
        self.count(held);
        wait
    }

    /// Renders all that the format held back: no line follows.
    pub fn finish(&mut self) {
        let held = self.format.held();
        self.format.finish(&mut self.batch.bytes);
        self.count(held);
    }

    /// Counts the lines that are in the batch now, of these and what is still held back.
    fn count(&mut self, lines: u64) {
        self.batch.lines += lines.saturating_sub(self.format.held());
    }

    /// Returns true if the queue has room for a line of any length.
    #[must_use]
    pub fn has_room(&self) -> bool {
        match &self.way {
            Delivery::Direct(_) => true,
            Delivery::Queue(queue) => queue.has_room(self.batch.bytes.len() + LINE_LEN_MAX),
        }
    }

    /// Number of lines that were made and will not be written.
    #[must_use]
    pub fn undelivered(&self) -> u64 {
        self.undelivered
    }
}

/// The writer ends once it has written what waits.
impl Drop for Output {
    fn drop(&mut self) {
        if let Delivery::Queue(queue) = &self.way {
            queue.close();
        }
    }
}

/// Returns true for an error of a write whose reader has gone, which is a clean stop.
#[must_use]
pub fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

#[cfg(test)]
mod tests;
