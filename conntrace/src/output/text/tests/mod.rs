mod any_line;
mod folding;
mod widths;

use std::{collections::BTreeMap, sync::Arc};

use insta::assert_snapshot;
use jiff::SignedDuration;
use nix::errno::Errno;
use unicode_width::UnicodeWidthStr as _;

use crate::{
    diagnosis::{Cause, Certainty, Code, Facts, Undiagnosed},
    output::{
        event::{
            Container, Endpoint, Loss, Outcome, Owner, TableLoss, Time, TopHolder,
            tests::{
                loss_line, outcome_line, outcome_of, port_pressure_line, port_relief_line,
                stall_line, start_line, stop_line, summary_line, table_line, table_loss,
            },
        },
        text::*,
    },
    record::{
        Attempt, Comm, RecordKind, Remote,
        label::tests::{errno, icmp4, unanswered},
    },
};

/// Creates text as on a terminal in UTC.
fn text_of_width(width: Option<u16>) -> Text {
    let mut text = Text::for_terminal(width, false, true);
    text.rows.time = LocalTime::of(TimeZone::UTC);
    text
}

fn plain(mut text: Text) -> Text {
    text.rows.page.utf8 = false;
    text
}

fn coloured(mut text: Text) -> Text {
    text.rows.page.colour = true;
    text
}

fn render(mut text: Text, lines: &[Line]) -> String {
    let mut out = Vec::new();
    for line in lines {
        text.render(line, &mut out).unwrap();
    }
    text.finish(&mut out);
    String::from_utf8(out).unwrap()
}

/// Shifts a line's time by milliseconds.
fn later(mut line: Line, ms: i64) -> Line {
    line.time = Time(line.time.0 + SignedDuration::from_millis(ms));
    line
}

fn outcome_mut(line: &mut Line) -> &mut Outcome {
    let Event::Outcome(outcome) = &mut line.event else {
        panic!("an outcome");
    };
    outcome
}

/// Adds a cause to an outcome.
fn explained(mut line: Line, code: Code, certainty: Certainty, why: &str, fix: &str) -> Line {
    let cause = Cause::new(code, certainty, why, fix, Facts::new());
    outcome_mut(&mut line).cause = Some(Arc::new(cause.into()));
    line
}

fn to(addr: [u16; 8], port: u16) -> Option<Remote> {
    Some(Remote {
        addr: addr.into(),
        port,
    })
}

fn named(attempt: &mut Attempt, comm: &[u8]) {
    let mut padded = [0; 16];
    padded[..comm.len()].copy_from_slice(comm);
    attempt.caller.as_mut().unwrap().comm = Comm(padded);
}

fn of(attempt: &Attempt) -> Line {
    outcome_of(attempt, Owner::default())
}

fn refused() -> Line {
    explained(
        outcome_line(),
        Code::NothingListening,
        Certainty::Likely,
        "10.0.0.5 is up and refuses 5432: nothing listens there, or a firewall resets it",
        "on 10.0.0.5: `ss -ltn 'sport = :5432'` shows whether the server listens, and on which \
         address; start it, or open its firewall",
    )
}

fn silent() -> Line {
    let mut attempt = unanswered();
    attempt.at_ns += 131_000_000_000;
    attempt.error = errno(Errno::ETIMEDOUT);
    (attempt.syn_sent, attempt.syn_retransmitted) = (7, 6);
    named(&mut attempt, b"backup-agent");
    let line = explained(
        of(&attempt),
        Code::SilentHost,
        Certainty::Possible,
        "10.0.0.5 is off, filtered or a wrong address: no traced attempt got an answer from it \
         in the last 131 s",
        "try another port of 10.0.0.5, and the address itself",
    );
    later(line, 4000)
}

fn rejected() -> Line {
    let mut attempt = unanswered();
    attempt.icmp = icmp4(3, 13, Errno::EHOSTUNREACH);
    named(&mut attempt, b"a-long-task-nam");
    attempt.remote = to(
        [
            0x2001, 0xdb8, 0x1111, 0x2222, 0x3333, 0x4444, 0x5555, 0x6666,
        ],
        50443,
    );
    let line = explained(
        of(&attempt),
        Code::AdminProhibited,
        Certainty::Certain,
        "10.0.0.1 forbids the connection: ICMP administratively prohibited",
        "allow [2001:db8:1111:2222:3333:4444:5555:6666]:50443 on 10.0.0.1",
    );
    later(line, 5000)
}

/// Returns an outcome with a container and a host name, undiagnosed for lack of time.
fn unexplained() -> Line {
    let mut attempt = unanswered();
    attempt.error = errno(Errno::ECONNREFUSED);
    attempt.heard = true;
    let mut line = of(&attempt);
    let outcome = outcome_mut(&mut line);
    outcome.undiagnosed = Some(Undiagnosed::NoTime);
    outcome.subject.remote.name = Some("db.internal".into());
    outcome.subject.remote.nat = Some(Endpoint {
        addr: Some([172, 17, 0, 4].into()),
        port: Some(5432),
    });
    outcome.subject.container = Some(Container {
        id: Some("3f2a1b9c8d7e6f5a4b3c2d1e0f9a8b7c6d5e4f3a2b1c0d9e8f7a6b5c4d3e2f1a".into()),
        ..Container::default()
    });
    later(line, 6000)
}

fn exhausted() -> Line {
    let mut attempt = unanswered();
    (attempt.syn_sent, attempt.local_port) = (0, None);
    let line = explained(
        of(&attempt),
        Code::EphemeralRangeUsedUp,
        Certainty::Certain,
        "connections to 10.0.0.5:5432 hold 28232 of the 28232 ports of the range 32768 60999: \
         28200 TIME_WAIT, 32 ESTABLISHED",
        "`sysctl -w net.ipv4.ip_local_port_range='10000 65535'` adds 27,304 ports",
    );
    later(line, 7000)
}

fn established() -> Line {
    let mut attempt = unanswered();
    attempt.moment = RecordKind::Established;
    attempt.heard = true;
    later(of(&attempt), 8000)
}

/// Returns the lines of a quarter of an hour with many failures.
fn night() -> Vec<Line> {
    let mut lines = vec![start_line(), stall_line(), refused()];
    for number in 1..=50 {
        let mut again = later(refused(), 20 * i64::from(number));
        outcome_mut(&mut again).subject.process.pid = Some(5000 + number);
        lines.push(again);
    }
    lines.extend([
        silent(),
        rejected(),
        unexplained(),
        exhausted(),
        established(),
        later(port_pressure_line(), 9000),
        later(port_relief_line(), 10_000),
        later(loss_line(), 11_000),
        later(summary_line(), 60_000),
        later(stop_line(), 61_000),
    ]);
    lines
}

/// Output with `LANG=C` is plain ASCII.
#[test]
fn in_plain_ascii() {
    let mut odd = unanswered();
    named(&mut odd, "größer…\u{1b}".as_bytes());
    odd.remote = to([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 443);
    let text = render(
        plain(text_of_width(Some(80))),
        &[of(&odd), rejected(), silent()],
    );
    assert!(text.is_ascii(), "{text}");
    assert_snapshot!(text, @r"
    08:30:00  cancelled       gr\u{...{1b}[4242]  [2001:db8::1]:443       50.00 ms
    08:30:05  unreachable     a-lon...-nam[4242]
              [2001:db8:1111:2222:3333:4444:5555:6666]:50443              50.00 ms
              admin_prohibited (certain): 10.0.0.1 forbids the connection: ICMP
              administratively prohibited
              fix: allow [2001:db8:1111:2222:3333:4444:5555:6666]:50443 on 10.0.0.1
    08:30:04  timed_out       backup-agent[4242]  10.0.0.5:5432           131.05 s
              possibly silent_host: 10.0.0.5 is off, filtered or a wrong address: no
              traced attempt got an answer from it in the last 131 s (7 SYNs, the
              kernel gave up)
              fix: try another port of 10.0.0.5, and the address itself
    ");
}

#[test]
fn the_table_of_attempts() {
    let root = Loss {
        table: Some(TableLoss {
            not_admitted: 1,
            top: table_loss().top.map(|top| TopHolder {
                uid: 0,
                comm: "a\u{1b}b".to_owned(),
                ..top
            }),
            ..table_loss()
        }),
        lost: BTreeMap::from([("untracked", 1)]),
        ..Loss::default()
    };
    let mut line = table_line();
    line.event = Event::Loss(root);
    let shown = render(text_of_width(Some(100)), &[table_line(), later(line, 1000)]);
    assert_snapshot!(shown, @r"
    08:30:00  LOST            1200 attempts found no place in conntrace's table: 40000 of the 49152 in
                              it are of uid 65534, 19000 of them of fill[4242]
    08:30:01  LOST            1 attempts without an outcome (untracked 1), 1 attempt found no place in
                              conntrace's table: 40000 of the 49152 in it are of uid 0 in /user.slice,
                              19000 of them of a\u{1b}b[4242]
    ");
}

#[test]
fn colours_follow_the_label() {
    let lines = [refused(), silent(), later(loss_line(), 5000)];
    let shown = render(coloured(text_of_width(Some(100))), &lines);
    assert_snapshot!(shown.replace('\u{1b}', "^"), @"
    08:30:00  ^[31mrefused^[0m         curl[4242]              10.0.0.5:5432            0.31 ms  ECONNREFUSED
              ^[1mnothing_listening (likely):^[0m 10.0.0.5 is up and refuses 5432: nothing listens there, or a
              firewall resets it
              ^[32mfix:^[0m on 10.0.0.5: `ss -ltn 'sport = :5432'` shows whether the server listens, and on which
                   address; start it, or open its firewall
    08:30:04  ^[33mtimed_out^[0m       backup-agent[4242]      10.0.0.5:5432           131.05 s  ETIMEDOUT
              possibly silent_host: 10.0.0.5 is off, filtered or a wrong address: no traced attempt got
              an answer from it in the last 131 s (7 SYNs, the kernel gave up)
              ^[32mfix:^[0m try another port of 10.0.0.5, and the address itself
    08:30:05  ^[1;31mLOST^[0m            4 attempts without an outcome (ring_full 3, untracked 1), 2 lines not
                              written (stalls 2)
    ");
    let bare = render(text_of_width(Some(100)), &night());
    assert!(!bare.contains('\u{1b}'));
    // Colours do not move any text.
    let shown = render(coloured(text_of_width(Some(100))), &night());
    let mut stripped = shown.split("\u{1b}[");
    let first = stripped.next().unwrap().to_owned();
    let stripped = stripped.filter_map(|piece| piece.split_once('m'));
    let stripped = stripped.fold(first, |all, (_, piece)| all + piece);
    assert_eq!(stripped, bare);
}

/// A possible cause is never printed as a fact.
#[test]
fn what_is_possible_says_so() {
    for width in [40, 80, 120, 200, u16::MAX] {
        let text = render(text_of_width(Some(width)), &[silent()]);
        let words: Vec<_> = text.split_whitespace().collect();
        let code = words.iter().position(|word| *word == "silent_host:");
        assert_eq!(words[code.unwrap() - 1], "possibly", "{text}");
    }
}

/// The layout follows a change of the window's width.
#[test]
fn follows_the_width() {
    let (mut text, mut out) = (text_of_width(Some(120)), Vec::new());
    text.ask_width = Some(|| Some(80));
    text.render(&refused(), &mut out).unwrap();
    let shown = String::from_utf8(out).unwrap();
    assert!(shown.starts_with("TIME "), "{shown}");
    assert!(shown.lines().all(|line| line.width() <= 80), "{shown}");
}

#[test]
fn control_characters_show() {
    let mut attempt = unanswered();
    attempt.caller.as_mut().unwrap().comm = Comm(*b"a\nb\x1b[2J\x7f\xff\xe2\x80\xae\0\0\0\0");
    let text = render(text_of_width(None), &[of(&attempt)]);
    assert!(
        text.contains(r"a\nb\u{1b}[2J\u{7f}�\u{202e}[4242]"),
        "{text}"
    );
}
