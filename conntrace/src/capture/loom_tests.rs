//! Tests the claim of a slot in the attempt table in every order of its steps.

use loom::{
    cell::UnsafeCell,
    sync::{
        Arc,
        atomic::{
            AtomicU32, AtomicU64,
            Ordering::{Acquire, Release, SeqCst},
        },
    },
    thread,
};

use conntrace_common::claim::{AttemptSlot, Claimable, claim, give_back};

/// Slot with the memory order of x86-64: loads acquire, stores release, additions are barriers.
#[derive(Default)]
struct LoomSlot {
    claims: AtomicU32,
    sock: AtomicU64,
    entry: UnsafeCell<()>,
}

struct Shared(Arc<LoomSlot>);

impl Claimable for Shared {
    fn claims(&self) -> u32 {
        self.0.claims.load(Acquire)
    }

    fn add_claims(&mut self, count: u32) {
        self.0.claims.fetch_add(count, SeqCst);
    }
}

impl AttemptSlot for Shared {
    fn name(&mut self, sock: u64) {
        self.0.sock.store(sock, Release);
    }
}

/// Runs the model with at most two preemptions; more would take minutes.
fn in_every_order(steps: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(steps);
}

/// Inserts and removes attempts of one socket, like `attempt_table`. Loom fails the model if
/// two threads access the entry at once.
fn attempts(slot: &Arc<LoomSlot>, sock: u64, count: usize) {
    let mut shared = Shared(Arc::clone(slot));
    for _ in 0..count {
        if !claim(&mut shared) {
            assert_ne!(slot.sock.load(Acquire), sock);
            continue;
        }
        assert_eq!(slot.sock.load(Acquire), 0, "nobody's");
        slot.entry.with_mut(|_| {});
        shared.name(sock);
        assert_eq!(slot.sock.load(Acquire), sock, "found");
        slot.entry.with(|_| {});
        give_back(&mut shared);
    }
}

#[test]
fn a_slot_is_one_sockets_in_every_order_of_steps() {
    in_every_order(|| {
        let slot = Arc::new(LoomSlot::default());
        let others = [2, 3].map(|sock| {
            let slot = Arc::clone(&slot);
            thread::spawn(move || attempts(&slot, sock, 1))
        });
        attempts(&slot, 1, 2);
        for other in others {
            assert!(other.join().is_ok());
        }
        assert_eq!(slot.claims.load(SeqCst), 0, "no claim is left");
        assert_eq!(slot.sock.load(SeqCst), 0);
    });
}
