//! Tells a person what happens on the stages while it happens: a block for each scene.

use std::{
    io::{self, Write as _},
    sync::{Mutex, PoisonError},
};

use tokio::sync::mpsc::UnboundedSender;

use super::{
    TracedLines, WIDTH,
    play::{self, DemoScene, SceneResult},
    words::{self, Ending},
};
use crate::{
    diagnosis,
    output::{event::Outcome, message, wrap::wrap},
    record::sanitize::visible,
};

/// Columns of what stands before the text of a block.
const INDENT: usize = 9;

/// Writes to stdout.
pub(super) struct Narrator {
    traced: TracedLines,
    /// Number of scenes that are over; locked while a block is written.
    over: Mutex<usize>,
    /// Gets the error when stdout cannot be written.
    failed: UnboundedSender<io::Error>,
}

impl Narrator {
    pub(super) fn new(traced: TracedLines, failed: UnboundedSender<io::Error>) -> Self {
        Self {
            traced,
            over: Mutex::new(0),
            failed,
        }
    }

    /// Tells of a scene that is over. Of one that was skipped the report tells.
    pub(super) fn tell(&self, scene: &DemoScene) {
        let mut over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        *over += 1;
        let lines = match scene.result {
            SceneResult::Skipped(_) => return,
            SceneResult::By { tid } => self.traced.lines(tid),
        };
        let count = play::scenarios().count();
        let block = format!("\n{}/{count}  {}", *over, block(scene, &lines));
        if let Err(error) = io::stdout().write_all(block.as_bytes()) {
            // Nobody listens any more once another block could not be written.
            let _ = self.failed.send(error);
        }
    }
}

/// First line of the demo: what it does, and how long that takes.
pub(super) fn announcement() -> String {
    format!(
        "{} scenes in network namespaces of their own; takes about 6 s, up to 15 s on a busy \
         machine.\n",
        play::scenarios().count()
    )
}

/// A scene's name, what it does, the lines that were traced of it, and why the last attempt
/// ended so.
fn block(scene: &DemoScene, lines: &[Outcome]) -> String {
    let tries = words::tries(scene.before.len() + 1);
    let about = part("what", scene.scenario.about);
    let mut text = format!("{}{tries}\n{about}", scene.scenario.name);
    if lines.is_empty() {
        text.push_str(&part("line", "none was traced"));
    }
    for (index, line) in lines.iter().enumerate() {
        let name = if index == 0 { "line" } else { "" };
        text.push_str(&part(name, &traced(line)));
    }
    let Some(last) = lines.last() else {
        return text;
    };
    if let Some(cause) = &last.cause {
        let why = words::cause(words::cause_of(last));
        text.push_str(&part("why", &format!("{why}: {}", cause.why)));
        text.push_str(&part("fix", &cause.fix));
    } else if let Some(reason) = last.undiagnosed {
        let why = format!("not looked for in full: {}", reason.as_str());
        text.push_str(&part("why", &why));
    } else if diagnosis::has_causes(last.label) {
        text.push_str(&part(
            "why",
            "unknown: this host has no evidence for a cause",
        ));
    }
    text
}

fn part(name: &str, words: &str) -> String {
    let (first, next) = (format!("  {name:<7}"), " ".repeat(INDENT));
    wrap(&visible(words), &first, &next, WIDTH)
}

/// `refused by RST, ECONNREFUSED, after 0.31 ms: 10.0.0.2:43210 -> 10.0.0.5:5432`
fn traced(line: &Outcome) -> String {
    let mut text = Ending::from(line).to_string();
    if let Some(errno) = &line.errno {
        text.push_str(", ");
        text.push_str(errno);
    }
    text.push_str(", after ");
    message::elapsed(&mut text, line.details.elapsed_us);
    text.push_str(": ");
    message::endpoint(&mut text, line.details.local);
    text.push_str(" -> ");
    message::endpoint(&mut text, line.subject.remote.endpoint());
    text
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::{
        commands::demo::tests::told,
        diagnosis::{Certainty, Code, Undiagnosed},
    };

    fn refused() -> DemoScene {
        DemoScene {
            scenario: play::scenarios().find(|it| it.name == "refused").unwrap(),
            cause: None,
            before: vec![None],
            result: SceneResult::By { tid: 1 },
        }
    }

    #[test]
    fn a_block_says_all_of_a_scene() {
        let line = told((Code::NothingListening, Certainty::Likely));
        assert_snapshot!(block(&refused(), &[line.clone(), line]), @r"
        refused (2nd try)
          what   connect to a port on which nothing listens: the host answers with a RST
          line   refused by RST, ECONNREFUSED, after 0.31 ms: 10.0.0.2:43210 -> 10.0.0.5:5432
                 refused by RST, ECONNREFUSED, after 0.31 ms: 10.0.0.2:43210 -> 10.0.0.5:5432
          why    nothing_listening (likely): why
          fix    fix
        ");
    }

    #[test]
    fn no_cause_has_a_reason() {
        let line = |undiagnosed| Outcome {
            cause: None,
            undiagnosed,
            ..told((Code::NothingListening, Certainty::Likely))
        };
        let block = |lines: &[Outcome]| block(&refused(), lines);
        assert!(block(&[line(None)]).contains("\n  why    unknown: this host has no evidence"));
        let late = block(&[line(Some(Undiagnosed::NoTime))]);
        assert!(
            late.contains("\n  why    not looked for in full: no_time\n"),
            "{late}"
        );
        assert!(block(&[]).ends_with("\n  line   none was traced\n"));
    }
}
