//! Where lines go. One format per file.

mod json;
mod text;

use std::io;

pub use json::Json;
pub use text::Text;

use crate::event::Line;

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
