use std::io::{self, BufWriter, Write};

use super::Sink;
use crate::event::{LINE_LEN_MAX, Line};

/// Lines buffered before they are written without being asked to.
const BUFFER_LEN: usize = 32 * LINE_LEN_MAX;

/// One JSON object per line.
#[derive(Debug)]
pub struct Json<W: Write> {
    out: BufWriter<W>,
}

impl<W: Write> Json<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        Self {
            out: BufWriter::with_capacity(BUFFER_LEN, out),
        }
    }
}

impl<W: Write> Sink for Json<W> {
    fn write(&mut self, line: &Line) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, line)?;
        self.out.write_all(b"\n")
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
