use std::{
    io::{self, ErrorKind},
    sync::Arc,
    time::Duration,
};

use super::{
    Destination, Progress,
    queue::{Chunk, Pause, Queue, WriterTask},
};

/// Pause before a failed write is retried.
const RETRY: Duration = Duration::from_millis(250);

/// Error that ends the writer early.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The reader has closed the output, which is a clean stop.
    #[error("the output was closed")]
    Closed,
    /// The lines cannot be written.
    #[error("cannot write lines to {name}")]
    Failed {
        /// Path of the destination, or `stdout`.
        name: String,
        /// Error of the last write.
        #[source]
        source: io::Error,
    },
    /// The last lines could not be written.
    #[error("cannot write the last {lines} lines to {name}")]
    Unwritten {
        /// Number of lines.
        lines: u64,
        /// Path of the destination, or `stdout`.
        name: String,
        /// Error of the last write.
        #[source]
        source: io::Error,
    },
}

/// Writes the lines that an [`Output`](super::Output) hands over.
#[derive(Debug)]
pub struct Writer {
    queue: Arc<Queue>,
    to: Destination,
    /// True if the last write failed.
    failing: bool,
    /// True if the destination must still be reopened.
    reopening: bool,
}

impl Writer {
    /// Returns true if the destination is a file that may have to be opened again.
    pub(crate) fn reopens(&self) -> bool {
        self.to.is_named()
    }

    pub(super) fn new(queue: Arc<Queue>, to: Destination) -> Self {
        Self {
            queue,
            to,
            failing: false,
            reopening: false,
        }
    }

    /// Returns a handle for another thread to watch the writer and reopen its file.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress(Arc::clone(&self.queue))
    }

    /// Writes until the output is dropped and everything is written. On a full disk, writes are
    /// retried until then.
    ///
    /// # Errors
    /// Fails when the reader has gone, or the lines cannot be written.
    pub fn run(mut self) -> Result<(), WriteError> {
        let mut written = Chunk::default();
        while let Some(work) = self.queue.next(&mut written) {
            match work {
                WriterTask::Reopen => {
                    // An error is logged for each request.
                    self.reopening = false;
                    self.reopen();
                }
                WriterTask::Write(chunk) => {
                    if self.reopening {
                        self.reopen();
                    }
                    self.write(&chunk)?;
                    written = chunk;
                }
            }
        }
        Ok(())
    }

    fn write(&mut self, chunk: &Chunk) -> Result<(), WriteError> {
        let mut done = 0;
        loop {
            let rest = chunk.bytes.get(done..).unwrap_or_default();
            if rest.is_empty() {
                if self.failing {
                    self.failing = false;
                    log::warn!("lines are written to {} again", self.to.name());
                }
                return Ok(());
            }
            match self.to.write(rest) {
                Ok(count) => {
                    done += count;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.to.wait_writable(),
                Err(error) => done = self.failed(chunk, done, error)?,
            }
        }
    }

    /// Waits before a retry. Returns the number of bytes of the chunk that are written.
    fn failed(
        &mut self,
        chunk: &Chunk,
        done: usize,
        error: io::Error,
    ) -> Result<usize, WriteError> {
        if self.to.is_closed_by(&error) {
            self.queue.abandon();
            return Err(WriteError::Closed);
        }
        if !self.to.may_recover() {
            self.queue.abandon();
            let name = self.to.name();
            return Err(WriteError::Failed {
                name,
                source: error,
            });
        }
        if !self.failing {
            self.failing = true;
            log::error!(
                "cannot write lines to {}: {error}; they are kept while there is room, then counted as undelivered",
                self.to.name()
            );
        }
        match self.queue.pause(RETRY) {
            Pause::Reopen if self.to.has_path() => {
                let begin = self.cut(chunk, done);
                self.reopen();
                Ok(begin)
            }
            Pause::Over | Pause::Reopen => Ok(done),
            Pause::Closed => Err(self.give_up(chunk, done, error)),
        }
    }

    /// Removes a partial line. Returns the number of bytes of the chunk that are written.
    fn cut(&mut self, chunk: &Chunk, done: usize) -> usize {
        let written = chunk.bytes.get(..done).unwrap_or_default();
        let begin = whole_lines(written);
        match self.to.cut(done - begin) {
            Ok(()) => begin,
            Err(_) if begin == done => done,
            Err(error) => {
                log::error!("{} ends within a line: {error}", self.to.name());
                // The next file gets the complete line.
                begin
            }
        }
    }

    fn give_up(&mut self, chunk: &Chunk, done: usize, source: io::Error) -> WriteError {
        let begin = self.cut(chunk, done);
        let rest = chunk.bytes.get(begin..).unwrap_or_default();
        let unwritten = rest.iter().filter(|&&byte| byte == b'\n').count() as u64;
        WriteError::Unwritten {
            lines: unwritten + self.queue.abandon(),
            name: self.to.name(),
            source,
        }
    }

    fn reopen(&mut self) {
        match self.to.reopen() {
            Ok(()) if self.reopening => {
                self.reopening = false;
                log::warn!("lines are written to the new {} now", self.to.name());
            }
            Ok(()) => {}
            Err(_) if self.reopening => {}
            Err(error) => {
                self.reopening = true;
                let error = anyhow::Error::from(error);
                log::error!("{error:#}; lines still go to the old file until this succeeds");
            }
        }
    }
}

/// Returns the length of the complete lines at the start.
fn whole_lines(bytes: &[u8]) -> usize {
    let last = bytes.iter().rposition(|&byte| byte == b'\n');
    last.map_or(0, |at| at + 1)
}
