//! `conntrace explain`: what a label means, how it is recognised, what to do.

mod labels;

use std::fmt::Write as _;

use crate::label::Label;

/// Columns of text; commands are never broken.
const WIDTH: usize = 80;

/// All there is to say about a label. (A cause will have one, too.)
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

/// A line for every label.
#[must_use]
pub fn overview() -> String {
    let mut text = format!("{:<19}  means\n", "label");
    for label in Label::ALL {
        let mark = if label.is_hidden() { "*" } else { "" };
        let name = format!("{}{mark}", label.as_str());
        let _ = writeln!(text, "{name:<19}  {}", labels::entry(label).means);
    }
    text.push_str(
        "\n* printed only with --all or --label\n\n`conntrace explain LABEL` says how it is recognised and what to do about it.\n",
    );
    text
}

/// Everything about one label.
#[must_use]
pub fn label(label: Label) -> String {
    let entry = labels::entry(label);
    let mut text = wrapped(&format!("{}: {}", label.as_str(), entry.means), "", "");
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
                      and `process.pid`. For a container, run what is meant for this host in its \
                      network namespace: nsenter -t PID -n COMMAND.";

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

    #[test]
    fn every_label_has_a_whole_entry() {
        for label in Label::ALL {
            let entry = labels::entry(label);
            let sentences = entry.recognised.iter().chain(entry.reasons);
            for sentence in sentences {
                assert!(sentence.ends_with(['.']), "{label:?}: {sentence}");
            }
            assert!(!entry.means.is_empty() && !entry.recognised.is_empty());
            assert!(entry.reasons.len() >= 2 && entry.steps.len() >= 2);
        }
    }

    #[test]
    fn the_overview_has_a_line_per_label() {
        let text = overview();
        for label in Label::ALL {
            let lines = text.lines();
            let own = lines.filter(|line| line.split([' ', '*']).next() == Some(label.as_str()));
            assert_eq!(own.count(), 1, "{label:?} in {text}");
        }
        assert!(text.lines().all(|line| line.len() <= WIDTH), "{text}");
    }

    #[test]
    fn lines_break_between_words() {
        for label in Label::ALL {
            let text = super::label(label);
            let commands = labels::entry(label).steps.iter().map(|step| step.command);
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
