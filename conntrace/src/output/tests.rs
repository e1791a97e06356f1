use std::sync::{Arc, Mutex};

use insta::assert_snapshot;

use super::*;
use crate::{
    event::{
        Event, Owner,
        tests::{
            loss_line, outcome_line, outcome_of, port_pressure_line, port_relief_line, stall_line,
            start_line, stop_line, summary_line,
        },
    },
    label::tests::{errno, icmp4, unanswered},
    wire::{Comm, Remote},
};

/// What has reached the reader.
#[derive(Clone, Default)]
struct Reader(Arc<Mutex<Vec<u8>>>);

impl Reader {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for Reader {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
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
fn check_lines(format: impl Format + 'static) -> String {
    let reader = Reader::default();
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

/// The error arrives, at the latest when the buffer is full, as what it is:
/// `main` takes a broken pipe for a clean stop.
fn check_error<F: Format + Default + 'static>() {
    let mut output = Output::direct(Box::new(F::default()), Gone);
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

/// Without the time of day, which is in the local zone.
fn timeless(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let (time, rest) = line.split_once("  ").unwrap();
        assert_eq!(time.len(), "08:30:00.123".len(), "{time}");
        rest
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn text_of(lines: &[Line]) -> String {
    let mut text = Vec::new();
    for line in lines {
        Text.render(line, &mut text).unwrap();
    }
    timeless(&String::from_utf8(text).unwrap())
}

#[test]
fn text_lines() {
    assert_snapshot!(timeless(&check_lines(Text)), @r#"
    conntrace 0.1.0 traces kernel 6.18.5 (tracepoint tier, 1 of 2 hooks)
    (stalled)            -              curl[4242]               10.0.0.2:43210        -> 10.0.0.5:5432              1.02 s  2 SYNs
    refused              ECONNREFUSED   curl[4242]               10.0.0.2:43210        -> 10.0.0.5:5432             0.31 ms  RST
    (ports at 50 %)      -              netns 7                  10.0.0.2:*            -> 10.0.0.5:5432                50 %  14100 ports: 14010 TIME_WAIT, 90 ESTABLISHED
    (ports are back)     -              netns 7                  10.0.0.2:*            -> 10.0.0.5:5432                 0 %  12 ports: 9000 TIME_WAIT, 12 ESTABLISHED; 9000 of these can be reused
    LOST  ring_full 3, untracked 1; undelivered stalls 2
    12 attempts: established 4, refused 5, timed_out 1; in flight 1, lost 1
    stopped (SIGTERM)  12 attempts: established 4, refused 5, timed_out 1; in flight 1, lost 1
    "#);
}

#[test]
fn text_aligns() {
    let mut silent = unanswered();
    silent.at_ns += 131_000_000_000;
    silent.error = errno(nix::errno::Errno::ETIMEDOUT);
    (silent.syn_sent, silent.syn_retransmitted) = (7, 6);

    let mut rejected = unanswered();
    rejected.icmp = icmp4(3, 13, nix::errno::Errno::EHOSTUNREACH);
    rejected.caller.as_mut().unwrap().comm = Comm(*b"a-long-task-name");
    rejected.remote = Some(Remote {
        addr: [0xfd00, 0, 0, 0, 0, 0, 0, 5].into(),
        port: 443,
    });

    let mut exhausted = unanswered();
    (exhausted.syn_sent, exhausted.local_port) = (0, None);

    let lines = [silent, rejected, exhausted].map(|attempt| outcome_of(&attempt, Owner::default()));
    assert_snapshot!(text_of(&lines), @r#"
    timed_out            ETIMEDOUT      curl[4242]               10.0.0.2:43210        -> 10.0.0.5:5432            131.05 s  7 SYNs
    unreachable          EHOSTUNREACH   a-long-task-name[4242]   10.0.0.2:43210        -> [fd00::5]:443            50.00 ms  ICMP 3/13 from 10.0.0.1
    port_exhausted       EADDRNOTAVAIL  curl[4242]               10.0.0.2:*            -> 10.0.0.5:5432            50.00 ms
    "#);
}

#[test]
fn text_tells_what_was_left_out() {
    let (mut outcome, mut summary) = (outcome_line(), summary_line());
    if let (Event::Outcome(outcome), Event::Summary(summary)) =
        (&mut outcome.event, &mut summary.event)
    {
        (outcome.details.suppressed, summary.suppressed) = (37, 40);
    }
    assert_snapshot!(text_of(&[outcome, summary]), @r#"
    refused              ECONNREFUSED   curl[4242]               10.0.0.2:43210        -> 10.0.0.5:5432             0.31 ms  RST  (37 like it left out)
    12 attempts: established 4, refused 5, timed_out 1; in flight 1, lost 1, lines left out 40
    "#);
}

#[test]
fn text_shows_control_characters() {
    let mut attempt = unanswered();
    attempt.caller.as_mut().unwrap().comm = Comm(*b"a\nb\x1b[2J\x7f\xff\xe2\x80\xae\0\0\0\0");
    let text = text_of(&[outcome_of(&attempt, Owner::default())]);
    assert!(
        text.contains(r"a\nb\u{1b}[2J\u{7f}�\u{202e}[4242]"),
        "{text}"
    );
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
