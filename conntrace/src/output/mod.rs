//! Formats of the lines, one per file, and where they go.

mod json;
mod text;

use std::{
    io::{self, BufWriter, Write},
    time::Duration,
};

use jiff::Timestamp;
pub use json::Json;
pub use text::Text;

use crate::event::{LINE_LEN_MAX, Line};

/// How many lines are buffered, at least, before they are written without being asked
/// to.
pub const LINES_BUFFERED: usize = 31;
/// One more: lines are as long as they may be, and end.
const BUFFER_LEN: usize = (LINES_BUFFERED + 1) * LINE_LEN_MAX;

/// Renders lines.
pub trait Format {
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

    /// Appends all that was held back: no line follows.
    fn finish(&mut self, out: &mut Vec<u8>) {
        let _ = out;
    }
}

/// Writes lines in a format.
pub struct Formatted<F, W: Write> {
    format: F,
    out: BufWriter<W>,
    /// The line at hand.
    line: Vec<u8>,
}

impl<F: Format, W: Write> Formatted<F, W> {
    /// Writes to `out`.
    pub fn new(format: F, out: W) -> Self {
        Self {
            format,
            out: BufWriter::with_capacity(BUFFER_LEN, out),
            line: Vec::with_capacity(LINE_LEN_MAX),
        }
    }
}

impl<F: Format, W: Write> Sink for Formatted<F, W> {
    fn write(&mut self, line: &Line) -> io::Result<()> {
        self.line.clear();
        self.format.render(line, &mut self.line)?;
        self.out.write_all(&self.line)
    }

    fn idle(&mut self, now: Timestamp) -> io::Result<Option<Duration>> {
        self.line.clear();
        let wait = self.format.idle(now, &mut self.line);
        self.out.write_all(&self.line)?;
        Ok(wait)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.line.clear();
        self.format.finish(&mut self.line);
        self.out.write_all(&self.line)?;
        self.out.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Takes lines.
pub trait Sink {
    /// Writes one line, perhaps only into a buffer.
    ///
    /// # Errors
    /// When the output cannot be written.
    fn write(&mut self, line: &Line) -> io::Result<()>;

    /// Writes what was held back of earlier lines and is due at `now`. Returns how long
    /// after that more is due, `None` when nothing is held back.
    ///
    /// # Errors
    /// When the output cannot be written.
    fn idle(&mut self, now: Timestamp) -> io::Result<Option<Duration>> {
        let _ = now;
        Ok(None)
    }

    /// Writes all that was held back, and hands everything to the reader: no line follows.
    ///
    /// # Errors
    /// When the output cannot be written.
    fn finish(&mut self) -> io::Result<()> {
        self.flush()
    }

    /// Hands everything written so far to the reader.
    ///
    /// # Errors
    /// When the output cannot be written.
    fn flush(&mut self) -> io::Result<()>;
}

#[cfg(test)]
mod tests;
