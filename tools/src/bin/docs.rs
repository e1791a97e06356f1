//! `docs`: write the documents that are made of the code. `docs --check` compares them instead.

#[path = "../docs/cli.rs"]
mod cli;
#[path = "../docs/events.rs"]
mod events;

use std::{env, fmt::Write as _, fs, path::Path, process::ExitCode};

use anyhow::{Context as _, Result, bail};
use conntrace::{
    commands::explain::{Explanation, PLACES, Topic, wrap},
    diagnosis::{Certainty, Code, RULES},
    record::Label,
};

/// Columns of text; tables and commands are wider.
const WIDTH: usize = 100;
const NOTICE: &str = "<!-- Written by `cargo run -p conntrace-tools --bin docs`: change the code, not this file. -->";

/// Path from the root of the repository, and the function that returns the text.
type Document = (&'static str, fn() -> String);

const DOCUMENTS: [Document; 4] = [
    ("docs/causes.md", causes),
    ("docs/cli.md", cli::document),
    ("docs/events.md", events::document),
    ("docs/labels.md", labels),
];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("docs: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    match args[..] {
        [] => write_all(),
        ["--check"] => check_all(),
        _ => bail!("usage: docs [--check]"),
    }
}

fn root() -> &'static Path {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR"));
    tools.parent().unwrap_or(tools)
}

fn write_all() -> Result<()> {
    for (file, document) in DOCUMENTS {
        let path = root().join(file);
        fs::write(&path, document()).with_context(|| format!("cannot write {file}"))?;
    }
    Ok(())
}

fn check_all() -> Result<()> {
    let mut outdated = Vec::new();
    for (file, document) in DOCUMENTS {
        let written =
            fs::read_to_string(root().join(file)).with_context(|| format!("cannot read {file}"))?;
        if written != document() {
            outdated.push(file);
        }
    }
    if outdated.is_empty() {
        return Ok(());
    }
    bail!(
        "outdated: {}; write anew with `cargo run -p conntrace-tools --bin docs`",
        outdated.join(", ")
    )
}

fn causes() -> String {
    let mut text = head(
        "Causes",
        "A label names how an attempt ended, a cause names the reason. A line has a cause only where \
         there is evidence for one. Its `certainty` tells how strong the evidence is:",
    );
    text.push_str(
        "
- `certain`: a fact read from this host or a packet proves it.
- `likely`: the evidence fits this explanation better than any other.
- `possible`: the evidence allows this explanation.
",
    );
    add_note_on_commands(&mut text);
    text.push_str(
        "
| cause | labels | meaning |
|---|---|---|
",
    );
    for code in Code::ALL {
        let (name, means) = (code.as_str(), escaped(code.info().means));
        let _ = writeln!(
            text,
            "| [`{name}`](#{name}) | {} | {means} |",
            label_links(code, "labels.md")
        );
    }
    for code in Code::ALL {
        add_cause(&mut text, code);
    }
    text
}

fn add_cause(text: &mut String, code: Code) {
    let cause = code.info();
    let _ = write!(text, "\n## `{}`\n\n", code.as_str());
    add_paragraph(text, cause.is);
    let _ = writeln!(text, "\nCause of: {}", label_links(code, "labels.md"));
    add_list(text, "Recognised by", cause.recognised);
    text.push_str("\n| certainty | proof |\n|---|---|\n");
    for (certainty, fact) in proofs(code) {
        let _ = writeln!(text, "| `{}` | {} |", certainty.as_str(), escaped(fact));
    }
    add_list(text, "Classic reasons", cause.reasons);
    add_steps(text, &Topic::Cause(code).explanation());
}

/// Certainties of a cause, with the fact that proves each, in the order of its rules.
fn proofs(code: Code) -> impl Iterator<Item = &'static (Certainty, &'static str)> {
    let rules = RULES.iter().filter(move |rule| rule.code == code);
    rules.flat_map(|rule| rule.proofs)
}

fn label_links(code: Code, file: &str) -> String {
    let labels = code.info().labels.iter().map(|label| label.as_str());
    let links: Vec<_> = labels
        .map(|name| format!("[`{name}`]({file}#{name})"))
        .collect();
    links.join(", ")
}

fn labels() -> String {
    let mut text = head(
        "Labels",
        "Every attempt that ends gets one label. The rules are numbered, and the first one that fits \
         decides. They see the kernel's record and `--patience`, nothing else.",
    );
    add_note_on_commands(&mut text);
    text.push_str("\n| label | printed | meaning |\n|---|---|---|\n");
    for label in Label::ALL {
        let name = label.as_str();
        let printed = if label.is_hidden() {
            "with `--all` or `--label`"
        } else {
            "by default"
        };
        let means = escaped(Topic::Label(label).explanation().means);
        let _ = writeln!(text, "| [`{name}`](#{name}) | {printed} | {means} |");
    }
    for label in Label::ALL {
        add_label(&mut text, label);
    }
    text
}

fn add_label(text: &mut String, label: Label) {
    let explanation = Topic::Label(label).explanation();
    let _ = write!(text, "\n## `{}`\n\n", label.as_str());
    add_paragraph(text, &sentence(explanation.means));
    add_list(text, "Recognised by", explanation.recognised);
    add_list(text, "Classic reasons", explanation.reasons);
    let codes = Code::ALL.into_iter();
    let causes: Vec<_> = codes
        .filter(|code| code.info().labels.contains(&label))
        .collect();
    if !causes.is_empty() {
        text.push_str("\n**Causes that a line can name**\n\n| cause | meaning |\n|---|---|\n");
    }
    for code in causes {
        let (name, means) = (code.as_str(), escaped(code.info().means));
        let _ = writeln!(text, "| [`{name}`](causes.md#{name}) | {means} |");
    }
    add_steps(text, &explanation);
}

/// Heading and introduction of a document.
fn head(title: &str, introduction: &str) -> String {
    let mut text = format!("# {title}\n\n{NOTICE}\n\n");
    add_paragraph(&mut text, introduction);
    text
}

fn add_note_on_commands(text: &mut String) {
    text.push('\n');
    let explain = "`conntrace explain NAME` prints a section of this page in the terminal.";
    add_paragraph(text, &format!("{explain} In the commands: {PLACES}"));
}

fn add_paragraph(text: &mut String, paragraph: &str) {
    text.push_str(&wrap(&escaped(paragraph), "", "", WIDTH));
}

fn add_list(text: &mut String, heading: &str, sentences: &[&str]) {
    let _ = write!(text, "\n**{heading}**\n\n");
    for sentence in sentences {
        text.push_str(&wrap(&escaped(sentence), "- ", "  ", WIDTH));
    }
}

fn add_steps(text: &mut String, explanation: &Explanation) {
    text.push_str("\n**Steps**\n");
    for (number, step) in (1..).zip(explanation.steps) {
        let _ = write!(text, "\n{number}. `{}`\n\n", step.command);
        text.push_str(&wrap(&escaped(&sentence(step.shows)), "   ", "   ", WIDTH));
    }
}

/// The words with a capital at their beginning and a full stop at their end.
fn sentence(words: &str) -> String {
    let mut letters = words.chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    let end = if words.ends_with('.') { "" } else { "." };
    first.chain(letters).collect::<String>() + end
}

/// Text in which Markdown finds no markup but that of code.
fn escaped(text: &str) -> String {
    let mut in_code = false;
    let mut escaped = String::new();
    for letter in text.chars() {
        in_code ^= letter == '`';
        if !in_code && matches!(letter, '*' | '<' | '|') {
            escaped.push('\\');
        }
        escaped.push(letter);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committed_documents_are_current() {
        check_all().unwrap();
    }

    #[test]
    fn markup_stands_in_code_only() {
        assert_eq!(escaped("A* of `a|b*` < c"), "A\\* of `a|b*` \\< c");
        assert_eq!(sentence("whether it runs"), "Whether it runs.");
        assert_eq!(sentence("Done."), "Done.");
        assert_eq!(sentence(""), ".");
    }
}
