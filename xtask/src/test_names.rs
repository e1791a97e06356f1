//! Holds the tests to a map: each name that a test once had, and the one it has now.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context as _, Result, ensure};

use crate::test;

/// A line for each test: `program::name` as it was, and as it is.
const MAP: &str = "tests/golden/test-names.txt";

/// Fails for a line of the map whose new name no test has.
pub(crate) fn exist(root: &Path) -> Result<()> {
    let mut names = BTreeSet::new();
    for program in test::programs(root)? {
        let tests = program.tests()?;
        names.extend(tests.iter().map(|test| format!("{}::{test}", program.name)));
    }
    compare(root, &names, "does not exist")
}

/// Fails for a line of the map whose new name did not run in this log of `cargo test`.
pub(crate) fn ran(root: &Path, log: &Path) -> Result<()> {
    let text = fs::read(log).with_context(|| format!("cannot read {}", log.display()))?;
    let names = reported(&String::from_utf8_lossy(&text));
    compare(root, &names, "neither ran nor was skipped with a reason")
}

fn compare(root: &Path, names: &BTreeSet<String>, lack: &str) -> Result<()> {
    let map = fs::read_to_string(root.join(MAP)).with_context(|| format!("cannot read {MAP}"))?;
    let wrong = wrong(&map, names, lack);
    ensure!(wrong.is_empty(), "{MAP}:\n{}", wrong.join("\n"));
    eprintln!("all {} tests of {MAP} are there", map.lines().count());
    Ok(())
}

fn wrong(map: &str, names: &BTreeSet<String>, lack: &str) -> Vec<String> {
    let lines = map.lines().filter_map(|line| match line.split_once(' ') {
        None => Some(format!("{line} has no new name")),
        Some((old, new)) if !names.contains(new) => Some(format!("{old}: {new} {lack}")),
        Some(_) => None,
    });
    lines.collect()
}

/// Returns the tests in a log, without those ignored without a reason.
fn reported(log: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut program = "";
    for line in log.lines() {
        if let Some(running) = line.trim_start().strip_prefix("Running ") {
            let path = running.rsplit_once('(').map_or(running, |(_, path)| path);
            program = test::stem(path.trim_end_matches(')'));
        } else if let Some((test, outcome)) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.split_once(" ... "))
        {
            let is_told = outcome != "ignored" || test.starts_with('[');
            let name = test.trim_end().rsplit(' ').next().filter(|_| is_told);
            names.extend(name.map(|name| format!("{program}::{name}")));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
     Running unittests src/lib.rs (target/debug/deps/conntrace-0123)
test wire::tests::whole ... ok
test wire::tests::manual ... ignored, needs root
test wire::tests::hidden ... ignored
     Running tests/live/main.rs (target/debug/deps/live-4567)
test                 ports::given_back ... 7 ports
test [needs a: ...b] routes::vrf       ... ignored
";

    #[test]
    fn a_log_tells_which_tests_ran() {
        let names = reported(LOG);
        let expected = [
            "conntrace::wire::tests::manual",
            "conntrace::wire::tests::whole",
            "live::ports::given_back",
            "live::routes::vrf",
        ];
        assert_eq!(names, expected.map(str::to_owned).into());
    }

    #[test]
    fn a_name_without_a_test_is_found() {
        let names = BTreeSet::from(["live::a".to_owned()]);
        let map = "old::a live::a\nold::b live::b\nold::c\n";
        let expected = ["old::b: live::b is gone", "old::c has no new name"];
        assert_eq!(wrong(map, &names, "is gone"), expected);
    }
}
