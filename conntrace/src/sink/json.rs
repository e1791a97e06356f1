use std::io::{self, BufWriter, Write};

use serde::Serialize as _;
use serde_json::ser::{Formatter, Serializer};

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
        line.serialize(&mut Serializer::with_formatter(&mut self.out, Escaping))?;
        self.out.write_all(b"\n")
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// JSON need not escape DEL and the control characters of Latin-1, but a terminal
/// that shows the lines would obey them.
struct Escaping;

impl Formatter for Escaping {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        out: &mut W,
        text: &str,
    ) -> io::Result<()> {
        // Nearly always: nothing to look for character by character.
        if text.is_ascii() && !text.as_bytes().contains(&b'\x7f') {
            return out.write_all(text.as_bytes());
        }
        for piece in text.split_inclusive(char::is_control) {
            out.write_all(piece.trim_end_matches(char::is_control).as_bytes())?;
            if let Some(c) = piece.chars().next_back().filter(|c| c.is_control()) {
                write!(out, "\\u{:04x}", u32::from(c))?;
            }
        }
        Ok(())
    }
}
