//! Figures as lines of words on the console, which `cargo xtask bench --guest` reads.

#![expect(clippy::print_stdout, reason = "what leaves a guest is its console")]

use std::fmt::Display;

/// First word of each line.
const MARK: &str = "cost";

/// Prints one figure: its kind, the binary's number or `-`, and its words. A word has no blanks.
pub(crate) fn figure(kind: &str, binary: &str, words: &[&dyn Display]) {
    let words = words.iter().map(|word| word.to_string().replace(' ', "_"));
    let words: Vec<_> = words.collect();
    println!("{MARK} {kind} {binary} {}", words.join(" "));
}

/// Prints a state that was not measured, and its reason.
pub(crate) fn not_run(binary: &str, state: &str, why: &str) {
    let why = why.replace('\n', "; ");
    println!("{MARK} not_run {binary} {state} {why}");
}

/// Prints a bare word, for the caller's own child.
pub(crate) fn answer(value: impl Display) {
    println!("{value}");
}
