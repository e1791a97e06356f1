use std::io::{self, Write};

use super::{
    Format,
    event::{AttemptLine, Line},
    known_cases::{KnownCase, KnownCases},
    template::{HoleWriter, Template},
};

/// Format with one JSON object per line.
#[derive(Debug, Default)]
pub struct Json {
    /// Buffer for the current line.
    line: Vec<u8>,
    /// Templates of failures that came again; `None` for one whose lines have none.
    pub(super) templates: KnownCases<Option<Template>>,
    writer: HoleWriter,
}

impl Format for Json {
    fn render(&mut self, line: &Line, out: &mut Vec<u8>) -> io::Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, line)?;
        write_visible(out, &self.line)?;
        out.push(b'\n');
        Ok(())
    }

    fn attempt(&mut self, attempt: &AttemptLine, out: &mut Vec<u8>) -> io::Result<()> {
        let again = match self.templates.find(&attempt.facts) {
            KnownCase::Kept(_, Some(template)) => {
                template.write(&attempt.numbers, &mut self.writer, out);
                return Ok(());
            }
            KnownCase::Kept(_, None) | KnownCase::New => None,
            KnownCase::Again(hash) => Some(hash),
        };
        let start = out.len();
        self.render(&attempt.line(), out)?;
        if let Some(hash) = again {
            let line = out.get(start..).unwrap_or_default();
            let template = self.template(attempt, line);
            self.templates.keep(hash, attempt.facts.clone(), template);
        }
        Ok(())
    }
}

impl Json {
    /// Returns the template of an attempt's line, if it gives this line.
    fn template(&mut self, attempt: &AttemptLine, line: &[u8]) -> Option<Template> {
        let template = Template::of(|numbers| {
            let mut out = Vec::new();
            self.render(&attempt.facts.line(numbers), &mut out).ok()?;
            Some(out)
        })?;
        let mut out = Vec::new();
        template.write(&attempt.numbers, &mut self.writer, &mut out);
        (out == line).then_some(template)
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
