//! `conntrace explain`: what a label or a cause means, how it is recognised, what
//! to do.

mod causes;
mod labels;

use std::fmt::Write as _;

use crate::{event::Code, label::Label};

/// Columns of text; commands are never broken.
const WIDTH: usize = 80;

/// What can be explained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// What happened.
    Label(Label),
    /// Why.
    Cause(Code),
}

impl Topic {
    /// As it is written in the lines.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Label(label) => label.as_str(),
            Self::Cause(code) => code.as_str(),
        }
    }

    fn entry(self) -> &'static Entry {
        match self {
            Self::Label(label) => labels::entry(label),
            Self::Cause(code) => causes::entry(code),
        }
    }
}

/// All there is to say about a label or a cause.
struct Entry {
    /// In half a sentence.
    means: &'static str,
    /// The rules that give it, one sentence each.
    recognised: &'static [&'static str],
    /// The classic reasons, the most frequent first.
    reasons: &'static [&'static str],
    /// What to check and do, in that order.
    steps: &'static [Step],
}

/// Something to run.
struct Step {
    command: &'static str,
    /// What it shows or changes.
    shows: &'static str,
}

/// A line for every label, and one for every cause.
#[must_use]
pub fn overview() -> String {
    let mut text = format!("{:<19}  means\n", "label");
    for label in Label::ALL {
        let mark = if label.is_hidden() { "*" } else { "" };
        let name = format!("{}{mark}", label.as_str());
        let _ = writeln!(text, "{name:<19}  {}", labels::entry(label).means);
    }
    text.push_str("\n* printed only with --all or --label\n");
    let _ = write!(text, "\n{:<25}  means\n", "cause");
    for code in Code::ALL {
        let means = causes::entry(code).means;
        let _ = writeln!(text, "{:<25}  {means}", code.as_str());
    }
    text.push_str(
        "\n`conntrace explain LABEL` or CAUSE says how it is recognised and what to do.\n",
    );
    text
}

/// Everything about one label or cause.
#[must_use]
pub fn topic(topic: Topic) -> String {
    let entry = topic.entry();
    let mut text = wrapped(&format!("{}: {}", topic.as_str(), entry.means), "", "");
    text.push_str("\nRecognised by\n");
    for rule in entry.recognised {
        text.push_str(&wrapped(rule, "  - ", "    "));
    }
    text.push_str("\nClassic reasons\n");
    for reason in entry.reasons {
        text.push_str(&wrapped(reason, "  - ", "    "));
    }
    text.push_str("\nWhat to check and do\n");
    for step in entry.steps {
        let _ = writeln!(text, "  {}", step.command);
        text.push_str(&wrapped(step.shows, "      ", "      "));
    }
    text.push('\n');
    text.push_str(&wrapped(PLACES, "", ""));
    text
}

/// Where the commands run, and what stands for what in them.
const PLACES: &str = "ADDR and PORT are the line's `remote`, LOCAL_PORT and PID its `local.port` \
                      and `process.pid`; other capitals are for you to fill in. For a container, run \
                      what is meant for this host in its network namespace: nsenter -t PID -n COMMAND.";

/// Breaks lines between words.
fn wrapped(words: &str, first: &str, next: &str) -> String {
    let mut text = String::new();
    let mut line = first.to_owned();
    let mut is_empty = true;
    for word in words.split(' ') {
        if !is_empty && line.len() + 1 + word.len() > WIDTH {
            text.push_str(&line);
            text.push('\n');
            next.clone_into(&mut line);
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    text + &line + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics() -> impl Iterator<Item = Topic> {
        let labels = Label::ALL.into_iter().map(Topic::Label);
        labels.chain(Code::ALL.into_iter().map(Topic::Cause))
    }

    #[test]
    fn every_topic_has_a_whole_entry() {
        for topic in topics() {
            let entry = topic.entry();
            let sentences = entry.recognised.iter().chain(entry.reasons);
            for sentence in sentences {
                assert!(sentence.ends_with(['.']), "{topic:?}: {sentence}");
            }
            assert!(!entry.means.is_empty() && !entry.recognised.is_empty());
            assert!(entry.reasons.len() >= 2 && entry.steps.len() >= 2);
        }
    }

    /// `ss` takes an IPv6 address with a port in brackets only, and one of IPv4 as well.
    #[test]
    fn addresses_of_ss_stand_in_brackets() {
        let commands = topics().flat_map(|topic| topic.entry().steps.iter().map(|it| it.command));
        let with_port = commands.filter(|command| command.contains("ADDR:PORT"));
        let bare: Vec<_> = with_port
            .filter(|command| command.contains("ss "))
            .collect();
        assert_eq!(bare, Vec::<&str>::new());
    }

    #[test]
    fn the_overview_has_a_line_per_topic() {
        let text = overview();
        for topic in topics() {
            let lines = text.lines();
            let own = lines.filter(|line| line.split([' ', '*']).next() == Some(topic.as_str()));
            assert_eq!(own.count(), 1, "{topic:?} in {text}");
        }
        assert!(text.lines().all(|line| line.len() <= WIDTH), "{text}");
    }

    #[test]
    fn lines_break_between_words() {
        for topic in topics() {
            let text = super::topic(topic);
            let commands = topic.entry().steps.iter().map(|step| step.command);
            let commands: Vec<_> = commands.collect();
            for line in text.lines() {
                assert!(
                    line.len() <= WIDTH || commands.contains(&line.trim_start()),
                    "{line}"
                );
            }
        }
        assert_eq!(wrapped("a b", "- ", "  "), "- a b\n");
        let long = "x".repeat(WIDTH);
        assert_eq!(
            wrapped(&format!("a {long}"), "- ", "  "),
            format!("- a\n  {long}\n")
        );
    }
}
