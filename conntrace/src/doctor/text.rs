//! The diagnosis as aligned text.

use std::fmt::Write as _;

use super::{Diagnosis, Fact, HookFinding, Seen, State};
use crate::text::visible;

/// Columns of the first and the second word of a line.
const STATE_WIDTH: usize = 11;
const NAME_WIDTH: usize = 25;

/// What each tier sees on the kernels that this version was tested on: made by
/// `cargo xtask vm --write`.
pub(super) const KERNELS: &str = include_str!("kernels.md");

pub(super) fn render(diagnosis: &Diagnosis) -> String {
    let mut text = format!(
        "conntrace {}, kernel {}, {}\n{}\n\nHost\n",
        diagnosis.version,
        diagnosis.kernel,
        diagnosis.architecture,
        verdict(diagnosis),
    );
    for fact in &diagnosis.facts {
        add_fact(&mut text, fact);
    }
    text.push_str("\nHooks\n");
    for hook in &diagnosis.hooks {
        add_hook(&mut text, hook);
    }
    text.push_str("\nCoverage\n");
    if diagnosis.can_trace {
        for (key, seen) in &diagnosis.coverage {
            add_seen(&mut text, key, seen);
        }
    } else {
        text.push_str("  not known: no hook could be tried\n");
    }
    text.push_str("\nOther kernels, as measured\n");
    for row in KERNELS.lines() {
        let _ = writeln!(text, "  {}", row.replace('`', ""));
    }
    text
}

fn verdict(diagnosis: &Diagnosis) -> String {
    if let Some(obstacle) = &diagnosis.obstacle {
        return format!("Tracing cannot start: {}", visible(&obstacle.message));
    }
    let hooks = diagnosis.hooks.iter();
    let attached = hooks.filter(|hook| hook.attached == Some(true)).count();
    format!(
        "Tracing can start: {} tier; {attached} of {} hooks were attached, and taken off again",
        diagnosis.tier.as_deref().unwrap_or("no"),
        diagnosis.hooks.len(),
    )
}

/// What the line says, below it what it costs and what would mend it.
fn add(text: &mut String, state: &str, name: &str, said: &str, below: &[(&str, Option<&str>)]) {
    let said = visible(said);
    let line = format!("  {state:<STATE_WIDTH$}{name:<NAME_WIDTH$}{said}");
    let _ = writeln!(text, "{}", line.trim_end());
    for (what, words) in below {
        if let Some(words) = words {
            let indent = 2 + STATE_WIDTH + NAME_WIDTH;
            let _ = writeln!(text, "{:indent$}{what}: {}", "", visible(words));
        }
    }
}

fn add_fact(text: &mut String, fact: &Fact) {
    let state = match fact.state {
        State::Ok => "ok",
        State::Limits => "limits",
        State::Blocks => "blocks",
        State::Unknown => "unknown",
    };
    let below = [("costs", fact.cost), ("remedy", fact.remedy)];
    add(text, state, fact.name, &fact.found, &below);
}

fn add_hook(text: &mut String, hook: &HookFinding) {
    let (state, cost) = match hook.attached {
        Some(true) => ("attached", None),
        Some(false) => ("missing", Some(hook.cost)),
        None => ("not tried", None),
    };
    let said = format!("{}: {}", hook.target, hook.purpose);
    let below = [("because", hook.reason.as_deref()), ("costs", cost)];
    add(text, state, hook.name, &said, &below);
}

fn add_seen(text: &mut String, key: &str, seen: &Seen) {
    let state = match seen.seen {
        Some(true) => "seen",
        Some(false) => "not seen",
        None => "not known",
    };
    let said = seen.reason.unwrap_or_default();
    add(text, state, key, said, &[("remedy", seen.remedy)]);
}
