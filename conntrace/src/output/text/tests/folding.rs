//! Repeated failures are folded without losing any.

use super::*;

#[test]
fn what_was_left_out_is_told() {
    let mut first = refused();
    outcome_mut(&mut first).details.suppressed = 37;
    let mut again = later(first.clone(), 10);
    outcome_mut(&mut again).details.suppressed = 3;
    let lines = [first, again.clone(), later(again, 10)];
    assert_snapshot!(render(text_of_width(Some(80)), &lines), @"
    08:30:00  refused         curl[4242]          10.0.0.5:5432            0.31 ms
              nothing_listening (likely): 10.0.0.5 is up and refuses 5432: nothing
              listens there, or a firewall resets it (37 more like it left out by
              --limit)
              fix: on 10.0.0.5: `ss -ltn 'sport = :5432'` shows whether the server
                   listens, and on which address; start it, or open its firewall
    08:30:00  refused         curl[4242]          10.0.0.5:5432             2 more
              6 more like it left out by --limit
    ");
}

/// Returns the number of outcomes that a text reports for this destination.
fn reported(text: &str, to: &str) -> u64 {
    let rows = text.lines().filter(|line| line.contains(to));
    let rows = rows.filter(|line| line.starts_with("08:") && !line.contains("stalled"));
    let count = |row: &str| match row.trim_end().strip_suffix(" more") {
        Some(row) => row.rsplit(' ').next().unwrap().parse().unwrap(),
        None => 1,
    };
    rows.map(count).sum()
}

#[test]
fn repeats_are_counted_second_by_second() {
    let mut lines: Vec<_> = (0..1000).map(|n| later(refused(), n * 7)).collect();
    lines.push(later(stop_line(), 7_100));
    let text = render(text_of_width(Some(80)), &lines);
    assert_eq!(reported(&text, " 10.0.0.5:5432 "), 1000, "{text}");
    let repeats = text.lines().filter(|line| line.ends_with(" more")).count();
    assert_eq!(repeats, 7, "{text}");
    assert_eq!(text.matches("fix:").count(), 1, "{text}");
    assert_eq!(text.matches("nothing_listening").count(), 1, "{text}");
}

/// Alternating repeats, as of two programs that retry, are folded separately.
#[test]
fn repeats_of_several_are_told_apart() {
    let other = |ms| {
        let mut attempt = unanswered();
        attempt.error = errno(Errno::ECONNREFUSED);
        attempt.remote = Some(Remote {
            addr: [10, 0, 0, 6].into(),
            port: 81,
        });
        named(&mut attempt, b"wget");
        later(of(&attempt), ms)
    };
    let lines: Vec<_> = (0..10)
        .flat_map(|n| [later(refused(), n), other(n)])
        .collect();
    assert_snapshot!(render(text_of_width(Some(80)), &lines), @"
    08:30:00  refused         curl[4242]          10.0.0.5:5432            0.31 ms
              nothing_listening (likely): 10.0.0.5 is up and refuses 5432: nothing
              listens there, or a firewall resets it
              fix: on 10.0.0.5: `ss -ltn 'sport = :5432'` shows whether the server
                   listens, and on which address; start it, or open its firewall
    08:30:00  refused         wget[4242]          10.0.0.6:81             50.00 ms
              ECONNREFUSED, ICMP
    08:30:00  refused         curl[4242]          10.0.0.5:5432             9 more
    08:30:00  refused         wget[4242]          10.0.0.6:81               9 more
    ");
}

#[test]
fn a_case_that_goes_on_is_told_again() {
    let lines = [0, 2000, 59_000, 61_000, 63_000].map(|ms| later(refused(), ms));
    let text = render(text_of_width(Some(80)), &lines);
    assert_eq!(text.matches("nothing_listening").count(), 2, "{text}");
    assert_eq!(text.matches("fix:").count(), 1, "{text}");
    assert_eq!(reported(&text, " 10.0.0.5:5432 "), 5, "{text}");
}

/// Another cause of the same failure is another case, with another `fix`.
#[test]
fn another_cause_is_another_case() {
    let other = explained(
        outcome_line(),
        Code::WrongPort,
        Certainty::Likely,
        "other",
        "connect to port 5433",
    );
    let text = render(text_of_width(Some(80)), &[refused(), other, refused()]);
    assert_eq!(text.matches("fix:").count(), 2, "{text}");
    assert_eq!(reported(&text, " 10.0.0.5:5432 "), 3, "{text}");
}

#[test]
fn what_is_held_back_is_due_after_a_second() {
    let mut text = text_of_width(Some(80));
    let mut out = Vec::new();
    let at = |ms| later(refused(), ms).time.0;
    assert_eq!(text.idle(at(0), &mut out), None);
    text.render(&refused(), &mut out).unwrap();
    assert_eq!(text.idle(at(1), &mut out), None);
    text.render(&later(refused(), 10), &mut out).unwrap();
    let before = out.len();
    let wait = text.idle(at(400), &mut out);
    assert_eq!(wait, Some(Duration::from_millis(610)));
    assert_eq!(out.len(), before);
    assert_eq!(text.idle(at(1010), &mut out), None);
    let reported = str::from_utf8(&out[before..]).unwrap();
    assert!(reported.ends_with(" 1 more\n"), "{reported}");
    // A clock that was set back does not hold repeats back forever.
    text.render(&later(refused(), 2000), &mut out).unwrap();
    assert_eq!(text.idle(at(-3_600_000), &mut out), None);
    assert!(out.ends_with(b" 1 more\n"));
}

/// The table of cases is bounded.
#[test]
fn a_full_table_starts_over() {
    let (mut text, mut out) = (text_of_width(Some(80)), Vec::new());
    let of_port = |port| {
        let mut line = refused();
        outcome_mut(&mut line).subject.remote.port = Some(port);
        line
    };
    let ports = 3000;
    for port in 0..ports {
        text.render(&of_port(port), &mut out).unwrap();
        text.render(&of_port(port), &mut out).unwrap();
    }
    text.finish(&mut out);
    let shown = String::from_utf8(out).unwrap();
    assert_eq!(reported(&shown, " 10.0.0.5:"), u64::from(ports) * 2);
    text.render(&of_port(0), &mut Vec::new()).unwrap();
    assert!(text.folds.len() <= folds::CASES_MAX);
}
