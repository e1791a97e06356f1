use std::mem::offset_of;

use conntrace_common::record::{FLAG_HEARD, FLAG_JOINED_LATE, RawRecord, STATE_ESTABLISHED};

use super::*;
use crate::record::{decode::tests::refused, history::RawComplete};

const PATIENCE_MS: u64 = 200;
const MS: u64 = 1_000_000;
const PORT: u16 = 40_000;
/// Time that a line may take.
const TIMEOUT: Duration = Duration::from_secs(3);

type Change<'a> = (usize, &'a [u8]);

/// Ending of an attempt that lasted so long and was closed unanswered, with these changes.
fn given_up(lasted_ms: u64, changes: &[Change<'_>]) -> CompleteRecord {
    let mut record = refused();
    let ended_ns = 1_000 + lasted_ms * MS;
    let silent: [Change<'_>; 5] = [
        (offset_of!(RawRecord, flags), &[0]),
        (offset_of!(RawRecord, error), &[0; 4]),
        (offset_of!(RawRecord, at_ns), &ended_ns.to_ne_bytes()),
        (offset_of!(RawRecord, local_port), &PORT.to_ne_bytes()),
        (
            offset_of!(RawRecord, syns_or_connects),
            &1_u32.to_ne_bytes(),
        ),
    ];
    for (at, value) in silent.iter().chain(changes) {
        record[*at..at + value.len()].copy_from_slice(value);
    }
    record
}

fn of_port(port: u16) -> CompleteRecord {
    given_up(
        300,
        &[(offset_of!(RawRecord, local_port), &port.to_ne_bytes())],
    )
}

#[test]
fn an_ending_is_held_if_its_answer_may_still_come() {
    let now = Instant::now();
    let is_held = |record: &CompleteRecord| LateAnswers::default().hold(record, PATIENCE_MS, now);
    assert!(is_held(&given_up(300, &[])));
    assert!(is_held(&given_up(PATIENCE_MS, &[])));
    assert!(is_held(&given_up(3_000, &[])));
    assert!(!is_held(&given_up(PATIENCE_MS - 1, &[])), "cancelled");
    assert!(!is_held(&given_up(3_001, &[])), "no answer is due");
    let others: [Change<'_>; 9] = [
        (offset_of!(RawRecord, flags), &[FLAG_HEARD]),
        (offset_of!(RawRecord, flags), &[FLAG_JOINED_LATE]),
        (offset_of!(RawRecord, error), &110_u32.to_ne_bytes()),
        (offset_of!(RawRecord, soft_error), &113_u32.to_ne_bytes()),
        (offset_of!(RawRecord, drops), &[1]),
        (offset_of!(RawRecord, syns_or_connects), &[0; 4]),
        (offset_of!(RawRecord, local_port), &[0; 2]),
        (offset_of!(RawRecord, state), &[STATE_ESTABLISHED]),
        (offset_of!(RawComplete, way_drop.packet), &[1]),
    ];
    for change in others {
        assert!(!is_held(&given_up(300, &[change])), "{change:?}");
    }
}

#[test]
fn a_client_releases_its_own_ending_once() {
    let mut held = LateAnswers::default();
    let now = Instant::now();
    for port in [1, 2, 3] {
        assert!(held.hold(&of_port(port), PATIENCE_MS, now));
    }
    let client = client_of(&of_port(2)).unwrap();
    let released = held.take(client).unwrap();
    assert_eq!((*released.record, released.since), (of_port(2), now));
    assert!(held.take(client).is_none());
    assert!(held.take(client_of(&of_port(4)).unwrap()).is_none());
    for port in [1, 3] {
        assert_eq!(*held.take_first().unwrap().record, of_port(port));
    }
    assert!(held.take_first().is_none());
}

#[test]
fn an_ending_is_due_after_its_wait() {
    let mut held = LateAnswers::default();
    let began = Instant::now();
    assert_eq!(held.due_at(TIMEOUT), None);
    for (port, after_ms) in [(1, 0), (2, 100)] {
        let since = began + Duration::from_millis(after_ms);
        assert!(held.hold(&of_port(port), PATIENCE_MS, since));
    }
    let due = began + WAIT_MAX;
    assert_eq!(held.due_at(TIMEOUT), Some(due));
    assert!(
        held.take_due(due - Duration::from_millis(1), TIMEOUT)
            .is_none()
    );
    assert_eq!(*held.take_due(due, TIMEOUT).unwrap().record, of_port(1));
    assert!(held.take_due(due, TIMEOUT).is_none(), "the next one is not");
    // A line that may take less time waits less.
    let short = Duration::from_millis(200);
    let due = began + Duration::from_millis(100) + short / 2;
    assert_eq!(held.due_at(short), Some(due));
    assert!(held.take_due(due, short).is_some());
}

#[test]
fn no_more_are_held_than_have_a_place() {
    let mut held = LateAnswers::default();
    let now = Instant::now();
    for port in 1..=u16::try_from(HELD_MAX).unwrap() {
        assert!(held.hold(&of_port(port), PATIENCE_MS, now));
    }
    assert!(!held.hold(&of_port(PORT), PATIENCE_MS, now));
    held.take_first().unwrap();
    assert!(held.hold(&of_port(PORT), PATIENCE_MS, now));
}
