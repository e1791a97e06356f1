//! Words that apply only in certain cases.

use crate::{
    output::{event::tests::*, message},
    record::{
        Drops,
        label::tests::{errno, unanswered},
    },
};

#[test]
fn a_stall_that_was_heard_is_not_unanswered() {
    let mut attempt = unanswered();
    attempt.at_ns = attempt.since_ns + 1_023_456_789;
    let message = |attempt: &Attempt| stall(attempt).subject.message;
    attempt.heard = true;
    assert!(
        message(&attempt).ends_with(
            " not accepted after 1.02 s: segments came, but no acceptable SYN-ACK; SYN sent again"
        ),
        "{}",
        message(&attempt)
    );
    attempt.heard = false;
    assert!(message(&attempt).ends_with(" no answer after 1.02 s: SYN sent again"));
}

#[test]
fn an_attempt_that_was_heard_is_not_unanswered() {
    let mut attempt = unanswered();
    attempt.error = errno(nix::errno::Errno::ETIMEDOUT);
    (attempt.syn_sent, attempt.syn_retransmitted) = (7, 6);
    let ends = |attempt: &Attempt, end: &str| {
        let line = outcome_of(attempt, owner());
        let message = &serde_json::to_value(line).unwrap()["message"];
        assert!(message.as_str().unwrap().ends_with(end), "{message}");
    };
    ends(&attempt, " ms: 7 SYNs unanswered");
    attempt.heard = true;
    ends(
        &attempt,
        " ms: segments came, but no acceptable SYN-ACK to 7 SYNs",
    );
}

#[test]
fn a_name_stands_before_its_address() {
    let Stall {
        mut subject,
        details,
    } = stall(&refused());
    subject.remote.name = Some("db.internal".into());
    let message = message::stall(&subject, &details, false);
    let to = "curl[4242] 10.0.0.2:43210 -> db.internal (10.0.0.5:5432) no answer";
    assert!(message.starts_with(to), "{message}");
}

/// A message says that this host answered only if it did.
#[test]
fn this_hosts_part() {
    let part = |attempt: &Attempt| {
        let verdict = crate::record::label(attempt, 20).unwrap();
        let outcome = outcome(attempt, &verdict, owner(), DiagnosisResult::default());
        (verdict.label, outcome.details.own_part)
    };
    let mut attempt = unanswered();
    assert_eq!(part(&attempt), (Label::TimedOut, ""));
    attempt.drops = Some(Drops {
        count: 1,
        reason: 8,
    });
    assert_eq!(part(&attempt), (Label::TimedOut, "dropped here"));
    let stalled = Attempt {
        moment: RecordKind::Stalled,
        ..attempt.clone()
    };
    let stalled = stall(&stalled);
    assert_eq!(stalled.details.own_part, "dropped here");
    // A rule that rejects with a RST drops the SYN and answers it.
    (attempt.error, attempt.heard) = (errno(nix::errno::Errno::ECONNREFUSED), true);
    assert_eq!(part(&attempt), (Label::Refused, "this host itself"));
}
