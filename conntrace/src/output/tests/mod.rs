mod any_attempt;

use std::sync::{Arc, Mutex};

use super::event::{
    Owner,
    tests::{
        loss_line, outcome_line, outcome_of, port_pressure_line, port_relief_line, stall_line,
        start_line, stop_line, summary_line, table_line,
    },
};
use crate::{
    output::*,
    record::{Comm, label::tests::unanswered},
};

/// Everything that has reached the reader.
#[derive(Clone, Default)]
struct TestReader(Arc<Mutex<Vec<u8>>>);

impl TestReader {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for TestReader {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A reader that has closed its end.
struct ClosedReader;

impl io::Write for ClosedReader {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn every_line() -> [Line; 9] {
    [
        start_line(),
        stall_line(),
        outcome_line(),
        port_pressure_line(),
        port_relief_line(),
        loss_line(),
        table_line(),
        summary_line(),
        stop_line(),
    ]
}

/// Checks that each line ends with one line feed, and is written only on request.
fn check_lines(format: impl Format + 'static) -> String {
    let reader = TestReader::default();
    let mut output = Output::direct(Box::new(format), reader.clone());
    for line in every_line() {
        output.write(&line);
    }
    assert_eq!(reader.text(), "");
    output.hand_over().unwrap();
    let text = reader.text();
    assert!(text.ends_with('\n'));
    assert_eq!(text.lines().count(), every_line().len(), "{text}");
    text
}

/// Checks that a broken pipe is reported as such, at the latest by a full buffer: `main` treats it
/// as a clean stop.
fn check_error<F: Format + Default + 'static>() {
    let mut output = Output::direct(Box::new(F::default()), ClosedReader);
    assert!(output.hand_over().is_ok(), "there is nothing to write");
    output.write(&outcome_line());
    let error = output.hand_over().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    let error = output.write_own(&stop_line()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn json_lines() {
    let text = check_lines(Json::default());
    for (got, line) in text.lines().zip(every_line()) {
        assert_eq!(got, serde_json::to_string(&line).unwrap());
    }
}

#[test]
fn write_errors_come_back() {
    check_error::<Json>();
    check_error::<Text>();
}

#[test]
fn json_holds_no_control_character() {
    let mut attempt = unanswered();
    attempt.caller.as_mut().unwrap().comm =
        Comm(*b"\x7f\x7fa\x1b\xc2\x9b\xc3\xa9b\xc2\x80c\0\0\0\0");
    let mut text = Vec::new();
    let line = outcome_of(&attempt, Owner::default());
    Json::default().render(&line, &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    let name = r#""comm":"\u007f\u007fa\u001b\u009béb\u0080c""#;
    assert!(text.contains(name), "{text}");
    assert!(!text.trim_end_matches('\n').contains(char::is_control));
    let line: serde_json::Value = serde_json::from_str(&text).unwrap();
    let comm = "\u{7f}\u{7f}a\u{1b}\u{9b}éb\u{80}c";
    assert_eq!(line["process"]["comm"], comm);
}

/// Folded repeats count as the lines they stand for: each undelivered line is counted once.
#[test]
fn folded_lines_are_counted_once() {
    let (_reader, writer) = io::pipe().unwrap();
    let pipe = std::fs::File::from(std::os::fd::OwnedFd::from(writer));
    let destination = Destination::open_file(pipe).unwrap();
    let (mut output, writer) = Output::queued(Box::new(Text::default()), destination);
    // The writer does not run: the queue has no room once the writer is dropped.
    writer.progress().reopen();
    output.write(&outcome_line());
    output.hand_over().unwrap();
    assert_eq!(writer.progress().waiting().1, 1);
    for _ in 0..9 {
        output.write(&outcome_line());
        output.hand_over().unwrap();
    }
    assert_eq!(writer.progress().waiting().1, 1, "nine are held back");
    output.finish();
    output.hand_over().unwrap();
    assert_eq!(writer.progress().waiting().1, 10);
    assert_eq!(output.undelivered(), 0);
}
