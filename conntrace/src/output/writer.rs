use std::{io, io::ErrorKind, sync::Arc, time::Duration};

use super::{
    Destination, Progress,
    queue::{Chunk, Pause, Queue, WriterTask},
};

/// Time between two tries to write what could not be written.
const RETRY: Duration = Duration::from_millis(250);

/// Error that ends the writer early.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The reader of the lines has gone: not a failure of ours.
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
    /// The last lines cannot be written.
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
    /// The last write failed.
    failing: bool,
    /// The destination is still to be opened anew.
    reopening: bool,
}

impl Writer {
    pub(super) fn new(queue: Arc<Queue>, to: Destination) -> Self {
        Self {
            queue,
            to,
            failing: false,
            reopening: false,
        }
    }

    /// Returns a handle by which another thread watches the writer and has it reopen its file.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress(Arc::clone(&self.queue))
    }

    /// Writes until the output is dropped and everything is written. What a full disk does
    /// not take is tried again until then.
    ///
    /// # Errors
    /// When nobody reads any more, or the lines cannot be written.
    pub fn run(mut self) -> Result<(), WriteError> {
        let mut written = Chunk::default();
        while let Some(work) = self.queue.next(&written) {
            written = Chunk::default();
            match work {
                WriterTask::Reopen => {
                    // Said for each request.
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

    /// Waits for another try. Returns how much of the chunk is written.
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

    /// Takes a half line back. Returns how much of the chunk is written then.
    fn cut(&mut self, chunk: &Chunk, done: usize) -> usize {
        let written = chunk.bytes.get(..done).unwrap_or_default();
        let begin = whole_lines(written);
        match self.to.cut(done - begin) {
            Ok(()) => begin,
            Err(_) if begin == done => done,
            Err(error) => {
                log::error!("{} ends within a line: {error}", self.to.name());
                // The line is whole in the next file.
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
                log::error!("{error:#}; lines go on to the file that is open, until it can be");
            }
        }
    }
}

/// Length of the whole lines that these bytes begin with.
fn whole_lines(bytes: &[u8]) -> usize {
    let last = bytes.iter().rposition(|&byte| byte == b'\n');
    last.map_or(0, |at| at + 1)
}
