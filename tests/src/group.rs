//! Runs groups of tests one after the other, each in a process of its own.
//!
//! A group keeps its process to itself: its agent, its mounts, its signal handlers and
//! the roles of its children, which inherit the group's name.

use std::{
    env,
    io::{self, BufRead as _, BufReader, Write as _},
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

use libtest_mimic::Arguments;

/// Variable of the environment that names the group a process runs.
const GROUP: &str = "CONNTRACE_TEST_GROUP";
/// Exit status of a program whose tests failed, as the standard harness has it.
const FAILED: u8 = 101;

/// A group's name, and the `main` of the process that runs it.
pub type Group = (&'static str, fn() -> ExitCode);

/// Runs the group that the environment names, or each one that the filter may select.
pub fn run_groups(groups: &[Group]) -> ExitCode {
    if let Some(name) = own_group() {
        let group = groups.iter().find(|(it, _)| *it == name);
        let (_, main) = group.unwrap_or_else(|| panic!("{GROUP}={name}: no such group"));
        return main();
    }
    let arguments = Arguments::from_args();
    let began = Instant::now();
    let mut report = Report::default();
    let mut not_started = 0;
    for (name, _) in groups {
        if may_select(&arguments, name) {
            report.run(name, arguments.list);
        } else {
            not_started += 1;
        }
    }
    if !arguments.list {
        report.conclude(not_started, began);
    }
    match report.failures.is_empty() {
        true => ExitCode::SUCCESS,
        false => FAILED.into(),
    }
}

/// Returns true if tests are only listed, which needs no agent.
#[must_use]
pub fn is_list() -> bool {
    Arguments::from_args().list
}

/// The whole name of a test of this process's group.
pub(crate) fn full_name(test: &str) -> String {
    own_group().map_or_else(|| test.to_owned(), |group| format!("{group}::{test}"))
}

fn own_group() -> Option<String> {
    env::var(GROUP).ok()
}

/// Returns true if a filter may select tests of this group. A filter with `::` names its groups;
/// any other is matched against every test.
fn may_select(arguments: &Arguments, group: &str) -> bool {
    let filter = arguments.filter.as_deref();
    match filter.and_then(|filter| filter.split_once("::")) {
        Some((name, _)) if arguments.exact => group == name,
        Some((name, _)) => group.ends_with(name),
        None => true,
    }
}

/// Results of the groups that have run.
#[derive(Default)]
struct Report {
    passed: u64,
    failed: u64,
    ignored: u64,
    filtered_out: u64,
    failures: Vec<String>,
}

impl Report {
    /// Runs a group with this process's arguments, and passes its output on.
    fn run(&mut self, name: &str, is_list: bool) {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(env::args_os().skip(1)).env(GROUP, name);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let (failures, mut is_told) = (self.failures.len(), is_list);
        let own = format!("    {name}::");
        // Not all that tests print has to be text.
        for line in BufReader::new(child.stdout.take().unwrap()).split(b'\n') {
            let line = line.unwrap();
            let text = String::from_utf8_lossy(&line);
            if text.starts_with("test result: ") {
                self.add(&text);
                is_told = true;
            } else if !text.is_empty() && text != "running 0 tests" {
                if text.starts_with(&own) {
                    self.failures.push(text.trim().to_owned());
                }
                print(&line);
            }
        }
        let status = child.wait().unwrap();
        if !(status.success() && is_told) && self.failures.len() == failures {
            let failure = format!("{name}: the group ended with {status}");
            self.failures.push(failure);
            self.failed += 1;
        }
    }

    /// Adds a line such as `test result: ok. 26 passed; 0 failed; 1 ignored; 0 measured; 2 filtered
    /// out`.
    fn add(&mut self, result: &str) {
        let words = result.split([' ', ';']);
        let counts: Vec<u64> = words.filter_map(|word| word.parse().ok()).collect();
        let [passed, failed, ignored, _, filtered_out] = counts[..] else {
            panic!("no result of a group: {result}");
        };
        self.passed += passed;
        self.failed += failed;
        self.ignored += ignored;
        self.filtered_out += filtered_out;
    }

    /// Prints the failures and one line with the sums.
    fn conclude(&self, not_started: usize, began: Instant) {
        if !self.failures.is_empty() {
            print(format!("\nfailures:\n    {}", self.failures.join("\n    ")).as_bytes());
        }
        let verdict = if self.failures.is_empty() {
            "ok"
        } else {
            "FAILED"
        };
        let line = format!(
            "\ntest result: {verdict}. {} passed; {} failed; {} ignored; 0 measured; {} filtered \
             out; {not_started} groups not started; finished in {:.2}s\n",
            self.passed,
            self.failed,
            self.ignored,
            self.filtered_out,
            began.elapsed().as_secs_f64()
        );
        print(line.as_bytes());
    }
}

fn print(line: &[u8]) {
    let mut stdout = io::stdout().lock();
    stdout.write_all(line).unwrap();
    stdout.write_all(b"\n").unwrap();
}
