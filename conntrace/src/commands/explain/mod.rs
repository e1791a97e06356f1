//! `conntrace explain`: the meaning of a label or a cause, its reasons and remedies.

mod labels;
mod words;

use std::{fmt::Write as _, sync::LazyLock};

pub use crate::output::wrap::wrap;
use crate::{
    diagnosis::{CauseInfo, Code, Step},
    record::Label,
};
use words::remark;
pub use words::{UnknownTopic, find};

/// Columns of text; commands are never broken.
const WIDTH: usize = 80;

/// Subject of an explanation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// Ending of an attempt.
    Label(Label),
    /// Reason for an ending.
    Cause(Code),
}

impl Topic {
    /// Every label, then every cause.
    #[must_use]
    pub fn all() -> &'static [Self] {
        static ALL: LazyLock<Vec<Topic>> = LazyLock::new(|| {
            let labels = Label::ALL.into_iter().map(Topic::Label);
            labels
                .chain(Code::ALL.into_iter().map(Topic::Cause))
                .collect()
        });
        &ALL
    }

    /// Name as lines write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Label(label) => label.as_str(),
            Self::Cause(code) => code.as_str(),
        }
    }

    /// Texts about the label or cause.
    #[must_use]
    pub fn explanation(self) -> Explanation {
        match self {
            Self::Label(label) => labels::explanation(label),
            Self::Cause(code) => Explanation::of(code.info()),
        }
    }
}

/// Texts about a label or a cause.
#[derive(Clone, Copy)]
pub struct Explanation {
    /// Meaning in half a sentence.
    pub means: &'static str,
    /// Rules that give it, one sentence each.
    pub recognised: &'static [&'static str],
    /// Classic reasons, the most frequent first.
    pub reasons: &'static [&'static str],
    /// Steps to check and mend it, in that order.
    pub steps: &'static [Step],
}

impl Explanation {
    fn of(cause: &CauseInfo) -> Self {
        Self {
            means: cause.means,
            recognised: cause.recognised,
            reasons: cause.reasons,
            steps: cause.steps,
        }
    }
}

/// Returns a table of all labels, and one of all causes.
#[must_use]
pub fn overview() -> String {
    let mut text = format!("{:<19}  means\n", "label");
    for label in Label::ALL {
        let mark = if label.is_hidden() { "*" } else { "" };
        let name = format!("{}{mark}", label.as_str());
        let _ = writeln!(text, "{name:<19}  {}", labels::explanation(label).means);
    }
    text.push_str("\n* printed only with --all or --label\n");
    let _ = write!(text, "\n{:<25}  means\n", "cause");
    for code in Code::ALL {
        let means = code.info().means;
        let _ = writeln!(text, "{:<25}  {means}", code.as_str());
    }
    text.push_str(
        "\n`conntrace explain NAME` says how it is recognised and what to do. Errno names\n\
         and error messages are taken as well: `conntrace explain ECONNREFUSED`.\n",
    );
    text
}

/// Explains the labels and causes that these words name.
///
/// # Errors
/// When no word is known.
pub fn answer(typed: &str) -> Result<String, UnknownTopic> {
    let text = match find(typed)?.as_slice() {
        [one] => topic(*one),
        topics => several(topics),
    };
    Ok(match remark(typed) {
        Some(remark) => wrap(remark, "", "", WIDTH) + "\n" + &text,
        None => text,
    })
}

/// Returns the whole explanation of a label or cause.
#[must_use]
pub fn topic(topic: Topic) -> String {
    let entry = topic.explanation();
    let mut text = wrap(&headline(topic), "", "", WIDTH);
    if let Topic::Cause(code) = topic {
        let labels = code.info().labels.iter().map(|label| label.as_str());
        let _ = writeln!(text, "Cause of: {}", labels.collect::<Vec<_>>().join(", "));
    }
    add_list(&mut text, "Recognised by", entry.recognised);
    add_list(&mut text, "Classic reasons", entry.reasons);
    if let Topic::Label(label) = topic {
        add_causes(&mut text, label);
    }
    text.push_str("\nWhat to check and do\n");
    for step in entry.steps {
        let _ = writeln!(text, "  {}", step.command);
        text.push_str(&wrap(step.shows, "      ", "      ", WIDTH));
    }
    text.push('\n');
    text.push_str(&wrap(PLACES, "", "", WIDTH));
    text
}

/// Lists several labels or causes, with the rules that tell them apart.
#[must_use]
pub fn several(topics: &[Topic]) -> String {
    let mut text = "That can be:\n".to_owned();
    for topic in topics {
        text.push('\n');
        text.push_str(&wrap(&headline(*topic), "", "  ", WIDTH));
        for rule in topic.explanation().recognised {
            text.push_str(&wrap(rule, "  - ", "    ", WIDTH));
        }
    }
    let names: Vec<_> = topics.iter().map(|topic| topic.as_str()).collect();
    let more = format!(
        "Why it happens and what to do: `conntrace explain NAME`, with NAME one of {}.",
        names.join(", ")
    );
    text.push('\n');
    text.push_str(&wrap(&more, "", "", WIDTH));
    text
}

fn headline(topic: Topic) -> String {
    format!("{}: {}", topic.as_str(), topic.explanation().means)
}

fn add_list(text: &mut String, heading: &str, sentences: &[&str]) {
    let _ = writeln!(text, "\n{heading}");
    for sentence in sentences {
        text.push_str(&wrap(sentence, "  - ", "    ", WIDTH));
    }
}

/// The causes that explain a label, if there are any.
fn add_causes(text: &mut String, label: Label) {
    let mut codes = Code::ALL
        .into_iter()
        .filter(|code| code.info().labels.contains(&label))
        .peekable();
    if codes.peek().is_some() {
        text.push_str("\nCauses that a line can name\n");
    }
    for code in codes {
        let means = code.info().means;
        let _ = writeln!(text, "  {:<25}  {means}", code.as_str());
    }
}

/// Note on the commands: the words in capitals, and the namespace to run them in.
pub const PLACES: &str = "ADDR and PORT are the line's `remote`, LOCAL_PORT and PID its `local.port` \
                      and `process.pid`; other capitals are for you to fill in. For a container, run \
                      what is meant for this host in its network namespace: nsenter -t PID -n COMMAND.";

#[cfg(test)]
mod tests {
    use super::*;

    fn topics() -> impl Iterator<Item = Topic> {
        Topic::all().iter().copied()
    }

    #[test]
    fn every_topic_has_a_whole_entry() {
        for topic in topics() {
            let entry = topic.explanation();
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
        let commands =
            topics().flat_map(|topic| topic.explanation().steps.iter().map(|it| it.command));
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
            let commands = topic.explanation().steps.iter().map(|step| step.command);
            let commands: Vec<_> = commands.collect();
            for line in text.lines() {
                assert!(
                    line.len() <= WIDTH || commands.contains(&line.trim_start()),
                    "{line}"
                );
            }
        }
    }

    #[test]
    fn pages_name_their_labels_and_causes() {
        let host_down = super::topic(Topic::Cause(Code::HostDown));
        let head = "host_down: the host is not there\nCause of: timed_out, unreachable\n";
        assert!(host_down.starts_with(head), "{host_down}");
        let refused = super::topic(Topic::Label(Label::Refused));
        let cause = "\n  nothing_listening          no socket accepts connections to that port\n";
        assert!(refused.contains(cause), "{refused}");
        let aborted = super::topic(Topic::Label(Label::Aborted));
        assert!(!aborted.contains("Causes that"), "{aborted}");
        let both = several(&[Topic::Label(Label::Refused), Topic::Cause(Code::NoRoute)]);
        for topic in ["\nrefused: ", "\nno_route: ", "\n  - Rule 3: "] {
            assert!(both.contains(topic), "{both}");
        }
    }
}
