use std::io::{self, Write};

use super::{Format, event::Line};

/// Format with one JSON object per line.
#[derive(Debug, Default)]
pub struct Json {
    /// Buffer for the current line.
    line: Vec<u8>,
}

impl Format for Json {
    fn render(&mut self, line: &Line, out: &mut Vec<u8>) -> io::Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, line)?;
        write_visible(out, &self.line)?;
        out.push(b'\n');
        Ok(())
    }
}

/// Escapes DEL and the C1 control characters. JSON allows them unescaped, but a terminal would
/// interpret them. Only strings can hold them.
fn write_visible(out: &mut impl Write, json: &[u8]) -> io::Result<()> {
    // Nearly always there are none to escape. A fold without an early exit is vectorised.
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
