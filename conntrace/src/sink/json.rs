use std::io::{self, BufWriter, Write};

use super::{BUFFER_LEN, Sink};
use crate::event::{LINE_LEN_MAX, Line};

/// One JSON object per line.
#[derive(Debug)]
pub struct Json<W: Write> {
    out: BufWriter<W>,
    /// The line at hand.
    line: Vec<u8>,
}

impl<W: Write> Json<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        Self {
            out: BufWriter::with_capacity(BUFFER_LEN, out),
            line: Vec::with_capacity(LINE_LEN_MAX),
        }
    }
}

impl<W: Write> Sink for Json<W> {
    fn write(&mut self, line: &Line) -> io::Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, line)?;
        write_visible(&mut self.out, &self.line)?;
        self.out.write_all(b"\n")
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// JSON need not escape DEL and the control characters of Latin-1, but a terminal
/// that shows the lines would obey them. Strings are all that can hold them.
fn write_visible(out: &mut impl Write, json: &[u8]) -> io::Result<()> {
    // Nearly always: nothing to look for character by character. A fold that does not
    // stop early is one that the compiler can do many bytes at a time.
    let highest = json.iter().fold(0, |highest, &byte| byte.max(highest));
    if highest < b'\x7f' {
        return out.write_all(json);
    }
    for piece in String::from_utf8_lossy(json).split_inclusive(char::is_control) {
        out.write_all(piece.trim_end_matches(char::is_control).as_bytes())?;
        if let Some(c) = piece.chars().next_back().filter(|c| c.is_control()) {
            write!(out, "\\u{:04x}", u32::from(c))?;
        }
    }
    Ok(())
}
