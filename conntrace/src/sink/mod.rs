//! Where lines go. One format per file.

mod json;
mod text;

use std::io;

pub use json::Json;
pub use text::Text;

use crate::event::{LINE_LEN_MAX, Line};

/// How many lines are buffered, at least, before they are written without being asked
/// to.
pub const LINES_BUFFERED: usize = 31;
/// One more: lines are as long as they may be, and end.
const BUFFER_LEN: usize = (LINES_BUFFERED + 1) * LINE_LEN_MAX;

/// Takes lines.
pub trait Sink {
    /// Writes one line, perhaps only into a buffer.
    ///
    /// # Errors
    /// When the output cannot be written.
    fn write(&mut self, line: &Line) -> io::Result<()>;

    /// Hands everything written so far to the reader.
    ///
    /// # Errors
    /// When the output cannot be written.
    fn flush(&mut self) -> io::Result<()>;
}

#[cfg(test)]
mod tests;
