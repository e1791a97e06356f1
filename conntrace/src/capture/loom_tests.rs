//! Tests the claims of slots in the attempt table in every order of their steps.
//!
//! The order of memory is that of x86-64: loads acquire, stores release, additions are barriers.
//! Decision 54 has the reasoning for weaker ones, which this model cannot express: it lets a thread
//! miss its own relaxed store.

use loom::{
    sync::{
        Arc, Mutex,
        atomic::{
            AtomicU64,
            Ordering::{Acquire, Release, SeqCst},
        },
    },
    thread,
};

use conntrace_common::claim::{AttemptSlot, Claimable, claim, holder, release, seal_offset};

/// Slot of the table whose entry has two words.
#[derive(Default)]
struct LoomSlot {
    claims: AtomicU64,
    seal: AtomicU64,
    entry: [AtomicU64; 2],
}

struct Shared(Arc<LoomSlot>);

impl Claimable for Shared {
    fn claims(&self) -> u64 {
        self.0.claims.load(Acquire)
    }

    fn add_claims(&mut self, count: u64) {
        self.0.claims.fetch_add(count, SeqCst);
    }
}

impl AttemptSlot for Shared {
    fn seal(&self) -> u64 {
        self.0.seal.load(Acquire)
    }
}

/// Runs the model with at most two preemptions; more would take minutes.
fn in_every_order(steps: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(steps);
}

/// Opens and ends attempts of one socket, like `attempt_table`: each step under the lock of the
/// socket, and while the slot is held, nobody else's entry is found in it.
fn attempts(slot: &Arc<LoomSlot>, lock: &Mutex<()>, sock: u64, count: u64) {
    let mut shared = Shared(Arc::clone(slot));
    for at in 0..count {
        let guard = lock.lock();
        assert_ne!(holder(&shared), sock, "an ended attempt holds nothing");
        let Some(epoch) = claim(&mut shared) else {
            continue;
        };
        let words = [sock, at];
        for (word, value) in slot.entry.iter().zip(words) {
            word.store(value, Release);
        }
        slot.seal
            .store(sock.wrapping_add(seal_offset(epoch)), Release);
        drop(guard);
        let guard = lock.lock();
        assert_eq!(holder(&shared), sock, "found");
        let found = [0, 1].map(|at| slot.entry[at].load(Acquire));
        assert_eq!(found, words, "nobody else wrote it");
        release(&mut shared);
        drop(guard);
    }
}

#[test]
fn a_slot_is_one_sockets_in_every_order_of_steps() {
    in_every_order(|| {
        let slot = Arc::new(LoomSlot::default());
        let other = {
            let slot = Arc::clone(&slot);
            thread::spawn(move || attempts(&slot, &Mutex::new(()), 0x2000, 2))
        };
        attempts(&slot, &Mutex::new(()), 0x1000, 2);
        assert!(other.join().is_ok());
        let claims = slot.claims.load(SeqCst);
        assert_eq!(claims % (1 << u32::BITS), 0, "no claim is left");
    });
}

/// The opening and the ending of an attempt run on different CPUs. Only the lock of the socket
/// orders them.
#[test]
fn another_cpu_ends_an_attempt() {
    in_every_order(|| {
        let slot = Arc::new(LoomSlot::default());
        let lock = Arc::new(Mutex::new(false));
        let ending = {
            let (slot, lock) = (Arc::clone(&slot), Arc::clone(&lock));
            thread::spawn(move || {
                let is_open = lock.lock();
                let mut shared = Shared(slot);
                let is_held = holder(&shared) == 0x1000;
                assert_eq!(is_held, is_open.as_ref().is_ok_and(|it| **it));
                if is_held {
                    assert_eq!(shared.0.entry[0].load(Acquire), 7);
                    release(&mut shared);
                }
            })
        };
        let other = {
            let slot = Arc::clone(&slot);
            thread::spawn(move || attempts(&slot, &Mutex::new(()), 0x2000, 1))
        };
        {
            let guard = lock.lock();
            let mut shared = Shared(Arc::clone(&slot));
            if let (Some(epoch), Ok(mut is_open)) = (claim(&mut shared), guard) {
                slot.entry[0].store(7, Release);
                slot.seal
                    .store(0x1000_u64.wrapping_add(seal_offset(epoch)), Release);
                *is_open = true;
            }
        }
        assert!(ending.join().is_ok() && other.join().is_ok());
    });
}
