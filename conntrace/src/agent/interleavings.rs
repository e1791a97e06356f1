//! Every order in which programs, drain and worker can take their steps.
//!
//! Real is the outbox: what is taken, counted, offered, and how the drain rests. The
//! loop of the drain around it, the queue of one batch and the worker are written down
//! here once more, a step for whatever another thread could come between. Records,
//! room and totals are few, which is enough to fill every place and to overflow it.
//!
//! Taken on the kernel's word: a record is reserved, then committed, and its commit wakes
//! the reader if the reader's position is then that of the record
//! (`bpf_ringbuf_commit`); a wake that nobody waited for is kept until somebody does
//! (tokio's `AsyncFd`); a program that runs when the hooks are taken off is done before a
//! nap is over. Memory is sequentially consistent here: the fences are aya's and the
//! kernel's. A worker that ends on its own ends the agent with an error, and is left out.

mod state;

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    mem::offset_of,
};

use conntrace_common::record::{KIND_ENDING, KIND_STALL, RECORD_SIZE, Record};

use super::{
    Dropped,
    outbox::{Outbox, Rest},
};
use crate::worker::WireRecord;
use state::{Drain, RestAfter, State};

/// Where a record's bytes have its number.
const NUMBER: usize = offset_of!(Record, attempt);

/// What the search came upon.
#[derive(Debug, Default)]
struct Found {
    states: usize,
    ends: usize,
    ring_full: bool,
    dropped: bool,
    stuck: bool,
}

fn dropped(dropped: Dropped) -> u64 {
    dropped.endings + dropped.stalls + dropped.malformed
}

/// The record of this number, every third of them a stall.
fn record(number: u8) -> WireRecord {
    let mut bytes = [0; RECORD_SIZE];
    let stalls = number % 3 == 2;
    bytes[offset_of!(Record, kind)] = if stalls { KIND_STALL } else { KIND_ENDING };
    bytes[NUMBER] = number;
    bytes
}

/// Stands for a state among those seen: of a million states the odds that two have the
/// same are one in 10^26, and the states themselves would take a gigabyte.
fn print_of(state: &State) -> u128 {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, state).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}

fn search(rest_after: RestAfter) -> Found {
    let mut found = Found::default();
    let mut seen = HashSet::new();
    let mut next = vec![State::new()];
    while let Some(state) = next.pop() {
        state.check();
        let steps = state.steps(rest_after);
        if steps.is_empty() {
            state.check_end();
            found.ends += 1;
        }
        found.states += 1;
        found.ring_full |= state.ring_full > 0;
        found.dropped |= dropped(state.outbox.dropped()) > 0;
        found.stuck |= state.drain == Drain::Stuck;
        next.extend(steps.into_iter().filter(|step| seen.insert(print_of(step))));
    }
    found
}

#[test]
fn no_order_of_steps_loses_a_record_or_leaves_one_behind() {
    let found = search(Outbox::rest_after);
    eprintln!("{found:?}");
    // It has been everywhere.
    assert!(found.ends > 0 && found.ring_full && found.dropped && found.stuck);
}

#[test]
#[should_panic(expected = "nobody wakes the drain")]
fn a_drain_that_parks_while_a_batch_waits_is_found() {
    search(|_, moved| match moved {
        0 => Rest::UntilWoken,
        _ => Rest::Nap,
    });
}
