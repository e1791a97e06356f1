use std::{cell::RefCell, rc::Rc};

use super::*;
use crate::{
    event::{
        Owner,
        tests::{
            loss_line, outcome_line, outcome_of, port_pressure_line, port_relief_line, stall_line,
            start_line, stop_line, summary_line,
        },
    },
    label::tests::unanswered,
    wire::Comm,
};

/// What has reached the reader.
#[derive(Clone, Default)]
struct Reader(Rc<RefCell<Vec<u8>>>);

impl Reader {
    fn text(&self) -> String {
        String::from_utf8(self.0.borrow().clone()).unwrap()
    }
}

impl io::Write for Reader {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A reader that has gone.
struct Gone;

impl io::Write for Gone {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn every_line() -> [Line; 8] {
    [
        start_line(),
        stall_line(),
        outcome_line(),
        port_pressure_line(),
        port_relief_line(),
        loss_line(),
        summary_line(),
        stop_line(),
    ]
}

/// One line each, and none before it is asked for.
fn check_lines(format: impl Format) -> String {
    let reader = Reader::default();
    let mut sink = Formatted::new(format, reader.clone());
    for line in every_line() {
        sink.write(&line).unwrap();
    }
    assert_eq!(reader.text(), "");
    sink.flush().unwrap();
    let text = reader.text();
    assert!(text.ends_with('\n'));
    assert_eq!(text.lines().count(), every_line().len(), "{text}");
    text
}

/// The error arrives, at the latest when the buffer is full, as what it is:
/// `main` takes a broken pipe for a clean stop.
fn check_error<F: Format + Default>() {
    let mut flushed = Formatted::new(F::default(), Gone);
    flushed.write(&outcome_line()).unwrap();
    assert_eq!(
        flushed.flush().unwrap_err().kind(),
        io::ErrorKind::BrokenPipe
    );

    let mut filled = Formatted::new(F::default(), Gone);
    let error = (0..u16::MAX).find_map(|port| {
        // No two are equal: those would be folded.
        let mut attempt = unanswered();
        attempt.remote.as_mut().unwrap().port = port;
        filled.write(&outcome_of(&attempt, Owner::default())).err()
    });
    assert_eq!(error.unwrap().kind(), io::ErrorKind::BrokenPipe);
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
    let reader = Reader::default();
    let mut sink = Formatted::new(Json::default(), reader.clone());
    sink.write(&outcome_of(&attempt, Owner::default())).unwrap();
    sink.flush().unwrap();
    let text = reader.text();
    let name = r#""comm":"\u007f\u007fa\u001b\u009béb\u0080c""#;
    assert!(text.contains(name), "{text}");
    assert!(!text.trim_end_matches('\n').contains(char::is_control));
    let line: serde_json::Value = serde_json::from_str(&text).unwrap();
    let comm = "\u{7f}\u{7f}a\u{1b}\u{9b}éb\u{80}c";
    assert_eq!(line["process"]["comm"], comm);
}
