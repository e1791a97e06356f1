//! Text report that fits one screen: it counts passed checks and names failed ones. The JSON report
//! has all of them.

use std::fmt::Write as _;

use super::{
    CheckState, HookFinding, HostCheck, HostReport,
    coverage::{SEE_HOOK, SEE_HOOKS, TRACE_SYSCALLS},
    facts::TRACEFS,
};
use crate::{output::wrap::wrap, record::sanitize::visible};

/// Width of a screen in columns.
const WIDTH: usize = 80;
/// Width of the first word of a line in columns.
const INDENT: usize = 12;

/// Table of each tier's coverage on the kernels this version was tested on, written by `cargo xtask
/// vm --write`.
pub(super) const KERNELS: &str = include_str!("kernels.md");

pub(super) fn render(report: &HostReport) -> String {
    let mut text = format!(
        "conntrace {}, kernel {}, {}\n",
        report.version, report.kernel, report.architecture,
    );
    text.push_str(&wrap(&visible(&verdict(report)), "", "", WIDTH));
    if let Some(step) = next_step(report) {
        text.push_str(&step);
    }
    add_facts(&mut text, &report.facts);
    add_hooks(&mut text, &report.hooks);
    add_coverage(&mut text, report);
    text.push_str("\n`conntrace doctor --format json` has every check, hook and reason.\n");
    text
}

fn verdict(report: &HostReport) -> String {
    if let Some(obstacle) = &report.obstacle {
        return format!("Tracing cannot start: {}", obstacle.message);
    }
    let attached = count(&report.hooks, Some(true));
    format!(
        "Tracing can start: {} tier; {attached} of {} hooks attached",
        report.tier.as_deref().unwrap_or("no"),
        report.hooks.len(),
    )
}

/// Returns the first thing to do: what lets tracing start, or closes the most gaps. A command
/// stands alone on its line, to be copied.
fn next_step(report: &HostReport) -> Option<String> {
    let mut facts = report.facts.iter();
    let indented = |words: &str| wrap(words, "  ", "  ", WIDTH);
    if !report.can_trace {
        let blocking = facts.find(|fact| fact.state == CheckState::Blocks)?;
        return Some(format!("To mend it:\n{}", indented(blocking.remedy?)));
    }
    let mut found = report.coverage.values();
    if !found.any(|found| found.remedy == Some(TRACE_SYSCALLS)) {
        return None;
    }
    let mount = facts
        .find(|fact| fact.name == TRACEFS)
        .and_then(|fact| fact.remedy);
    let mount = mount.map_or_else(String::new, |mount| format!("{mount} && "));
    let (command, remark) = TRACE_SYSCALLS.split_once(", which ")?;
    let remark = indented(&format!("({remark})"));
    Some(format!("To see more:\n  {mount}{command}\n{remark}"))
}

fn count(hooks: &[HookFinding], attached: Option<bool>) -> usize {
    let is_so = |hook: &&HookFinding| hook.attached == attached;
    hooks.iter().filter(is_so).count()
}

/// Writes words beside a name, with further lines indented.
fn add(text: &mut String, name: &str, words: &str) {
    let first = format!("{:<INDENT$}", format!("  {name}"));
    let next = " ".repeat(INDENT);
    text.push_str(&wrap(&visible(words), &first, &next, WIDTH));
}

fn add_facts(text: &mut String, facts: &[HostCheck]) {
    let is_ok = |fact: &&HostCheck| fact.state == CheckState::Ok;
    let ok = facts.iter().filter(is_ok).count();
    let _ = writeln!(text, "\nHost: {ok} of {} checks are ok", facts.len());
    for fact in facts {
        let state = match fact.state {
            CheckState::Ok => continue,
            CheckState::Limits => "limits",
            CheckState::Blocks => "blocks",
            CheckState::Unknown => "unknown",
        };
        let mut found = format!("{}: {}", fact.name, fact.found);
        if let Some(cost) = fact.cost {
            found.push_str("; ");
            found.push_str(cost);
        }
        add(text, state, &found);
        if let Some(remedy) = fact.remedy {
            add(text, "", &format!("remedy: {remedy}"));
        }
    }
}

/// Lists the missing hooks, grouped by reason.
fn add_hooks(text: &mut String, hooks: &[HookFinding]) {
    let (attached, all) = (count(hooks, Some(true)), hooks.len());
    if count(hooks, None) == all {
        let _ = writeln!(text, "\nHooks: none of {all} could be tried");
        return;
    }
    let _ = writeln!(text, "\nHooks: {attached} of {all} attached");
    let missing = || hooks.iter().filter(|hook| hook.attached != Some(true));
    for reason in distinct(missing().map(|hook| hook.reason.as_deref())) {
        let these = || missing().filter(|hook| hook.reason.as_deref() == reason);
        let names: Vec<_> = these().map(|hook| hook.name).collect();
        add(text, "missing", &names.join(", "));
        let reason = reason.unwrap_or("not tried");
        add(text, "", &format!("because: {reason}"));
        let costs = distinct(these().map(|hook| hook.cost));
        add(text, "", &format!("costs: {}", costs.join("; ")));
    }
}

/// Lists the kinds that are seen and not seen, and remedies not named above.
fn add_coverage(text: &mut String, report: &HostReport) {
    let keys = |seen: bool| -> Vec<&str> {
        let coverage = report.coverage.iter();
        let of_these = coverage.filter(|(_, found)| found.seen == Some(seen));
        of_these.map(|(key, _)| *key).collect()
    };
    if !report.can_trace {
        text.push_str("\nCoverage: not known\n");
        return;
    }
    let (seen, not_seen) = (keys(true), keys(false));
    let all = report.coverage.len();
    let _ = writeln!(text, "\nCoverage: {} of {all} kinds", seen.len());
    add(text, "seen", &seen.join(", "));
    if not_seen.is_empty() {
        return;
    }
    add(text, "not seen", &not_seen.join(", "));
    let found = || report.coverage.iter();
    let named_above = [TRACE_SYSCALLS, SEE_HOOK, SEE_HOOKS];
    let remedies = found().filter_map(|(_, found)| found.remedy);
    for remedy in distinct(remedies.filter(|remedy| !named_above.contains(remedy))) {
        let mended = found().filter(|(_, found)| found.remedy == Some(remedy));
        let keys: Vec<_> = mended.map(|(key, _)| *key).collect();
        add(text, "", &format!("{}: {remedy}", keys.join(", ")));
    }
}

/// Returns each element once, in order of first occurrence.
fn distinct<T: PartialEq>(all: impl Iterator<Item = T>) -> Vec<T> {
    let mut found = Vec::new();
    for one in all {
        if !found.contains(&one) {
            found.push(one);
        }
    }
    found
}
