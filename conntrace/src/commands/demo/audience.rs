//! Picks the demo's own lines out of what is traced.

use std::io;

use super::TracedLines;
use crate::output::{
    Format, Json,
    event::{Event, Line, Outcome},
};

/// Remembers the endings of attempts on the demo's stages, and renders their lines if
/// there is a format for them. Lines of other network namespaces are dropped.
pub(super) struct Audience {
    pub(super) traced: TracedLines,
    /// `None` where the lines are told in blocks instead.
    pub(super) shown: Option<Json>,
}

impl Format for Audience {
    fn render(&mut self, line: &Line, out: &mut Vec<u8>) -> io::Result<()> {
        let (subject, details) = match &line.event {
            Event::Outcome(outcome) => (&outcome.subject, &outcome.details),
            Event::Stall(stall) => (&stall.subject, &stall.details),
            Event::Start(_)
            | Event::PortPressure(_)
            | Event::Loss(_)
            | Event::Summary(_)
            | Event::Stop(_) => return Ok(()),
        };
        if !details
            .netns
            .is_some_and(|netns| self.traced.is_stage(netns))
        {
            return Ok(());
        }
        if let Some(shown) = &mut self.shown {
            shown.render(line, out)?;
        }
        if let (Event::Outcome(outcome), Some(tid)) = (&line.event, subject.process.tid) {
            self.traced.add(tid, Outcome::clone(outcome));
        }
        Ok(())
    }
}
