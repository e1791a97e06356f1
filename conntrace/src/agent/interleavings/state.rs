//! Drain, worker and programs at one moment, and what can happen next.

use std::collections::VecDeque;

use super::{NUMBER, dropped, record};
use crate::{
    agent::outbox::{Outbox, Queue, Rest},
    source::Counters,
    worker::{Batch, Purpose, Snapshot},
};

/// Records that programs have.
const RECORDS: u8 = 5;
/// CPUs on which they run.
const CPUS: usize = 2;
/// Records that the ring takes.
const RING: usize = 2;
/// Records that wait for the worker.
const PENDING: usize = 2;

/// Where a program is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Program {
    /// Not running.
    Idle,
    /// Has room for the record of this number, and fills it.
    Fills(u8),
    /// Has committed it, and is about to look where the reader is.
    Looks(u8),
}

/// What a look into the ring is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum For {
    /// The records.
    Records,
    /// Totals, which go behind them; for a loss, after a drain that moved so many.
    Summary,
    Loss(usize),
    Stop,
}

/// Where the drain is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Drain {
    /// Moves records. What was committed below `due` when it began must be gone in the end.
    Moves { why: For, moved: usize, due: u8 },
    /// Has found the ring empty.
    Offers { why: For, moved: usize },
    /// Waits.
    Rests(Rest),
    /// Naps after the hooks were taken off.
    Detached,
    /// Naps and offers the rest.
    Finishes,
    /// Has closed the queue.
    Ended,
    /// Has given up on the output, and says so.
    Stuck,
}

/// Where the worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Worker {
    Waits,
    /// Has a batch: for how long is the other steps' choice, for ever included.
    Writes,
    Ended,
}

/// The queue: room for one batch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Slot(Option<Batch>);

impl Queue for Slot {
    fn hand_over(&mut self, batch: Batch) -> Result<(), Batch> {
        match self.0 {
            Some(_) => Err(batch),
            None => {
                self.0 = Some(batch);
                Ok(())
            }
        }
    }
}

/// Everything there is at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct State {
    /// Records in the ring and whether they are committed. The first has the number
    /// `read`, which is the reader's position.
    ring: VecDeque<bool>,
    read: u8,
    /// The reader has the first one in its hands: it is taken, but not yet given back.
    holds: bool,
    programs: [Program; CPUS],
    /// Records that found the ring full.
    pub(super) ring_full: u8,
    /// A wake is kept.
    woken: bool,
    pub(super) drain: Drain,
    pub(super) outbox: Outbox,
    slot: Slot,
    worker: Worker,
    /// What reached the worker: how many, and the last one's number and one.
    delivered: u8,
    delivered_to: u8,
    /// Totals still to be asked for, of a summary or a loss.
    asks: u8,
    /// What the worker was told last was dropped.
    told_dropped: u64,
    /// The last totals, once the worker was told them.
    told: Option<Snapshot>,
}

/// How the drain rests, which a test may spoil.
pub(super) type RestAfter = fn(&Outbox, usize) -> Rest;

impl State {
    pub(super) fn new() -> Self {
        Self {
            ring: VecDeque::new(),
            read: 0,
            holds: false,
            programs: [Program::Idle; CPUS],
            ring_full: 0,
            woken: false,
            drain: Drain::Rests(Rest::UntilWoken),
            outbox: Outbox::new(PENDING),
            slot: Slot::default(),
            worker: Worker::Waits,
            delivered: 0,
            delivered_to: 0,
            asks: 1,
            told_dropped: 0,
            told: None,
        }
    }

    /// Records that got room in the ring, ever.
    fn reserved(&self) -> u8 {
        self.read + u8::try_from(self.ring.len()).unwrap()
    }

    fn is_detached(&self) -> bool {
        match self.drain {
            Drain::Moves { why, .. } | Drain::Offers { why, .. } => why == For::Stop,
            Drain::Rests(_) => false,
            Drain::Detached | Drain::Finishes | Drain::Ended | Drain::Stuck => true,
        }
    }

    /// Every state that one step leads to.
    pub(super) fn steps(&self, rest_after: RestAfter) -> Vec<Self> {
        let programs = (0..CPUS).filter_map(|cpu| self.program_step(cpu));
        let mut all: Vec<_> = programs.collect();
        all.extend(self.drain_steps(rest_after));
        all.extend(self.worker_step());
        all
    }

    fn program_step(&self, cpu: usize) -> Option<Self> {
        let mut next = self.clone();
        match self.programs[cpu] {
            Program::Idle if self.is_detached() => return None,
            Program::Idle if self.reserved() + self.ring_full >= RECORDS => return None,
            Program::Idle if self.ring.len() >= RING => next.ring_full += 1,
            Program::Idle => {
                next.programs[cpu] = Program::Fills(self.reserved());
                next.ring.push_back(false);
            }
            Program::Fills(number) => {
                next.ring[usize::from(number - self.read)] = true;
                next.programs[cpu] = Program::Looks(number);
            }
            Program::Looks(number) => {
                next.woken |= self.read == number;
                next.programs[cpu] = Program::Idle;
            }
        }
        // The CPUs are alike.
        next.programs.sort();
        Some(next)
    }

    fn with(&self, drain: Drain) -> Self {
        Self {
            drain,
            ..self.clone()
        }
    }

    /// Begins to move records.
    fn moves(&self, why: For) -> Self {
        let committed = self.ring.iter().take_while(|committed| **committed);
        let due = self.read + u8::try_from(committed.count()).unwrap();
        self.with(Drain::Moves { why, moved: 0, due })
    }

    fn drain_steps(&self, rest_after: RestAfter) -> Vec<Self> {
        match self.drain {
            Drain::Moves { why, moved, due } => vec![self.move_one(why, moved, due)],
            Drain::Offers { why, moved } => self.offer(why, moved, rest_after),
            Drain::Rests(rest) => self.rest(rest),
            Drain::Detached if self.programs == [Program::Idle; CPUS] => {
                vec![self.moves(For::Stop)]
            }
            Drain::Finishes if self.outbox.waits() => {
                let mut next = self.clone();
                next.outbox.offer(&mut next.slot);
                let stuck = self.with(Drain::Stuck);
                if next == *self {
                    vec![stuck]
                } else {
                    vec![next]
                }
            }
            Drain::Finishes => vec![self.with(Drain::Ended)],
            Drain::Detached | Drain::Ended | Drain::Stuck => Vec::new(),
        }
    }

    fn move_one(&self, why: For, moved: usize, due: u8) -> Self {
        let mut next = self.clone();
        if self.holds {
            next.holds = false;
            next.ring.pop_front();
            next.read += 1;
        } else if self.ring.front() == Some(&true) {
            next.outbox.take(&record(self.read), &mut next.slot);
            let is_full = next.slot.0.is_some();
            let kept = next.outbox.dropped() == self.outbox.dropped();
            assert!(kept || is_full, "dropped with the queue free: {self:#?}");
            next.holds = true;
            let moved = moved + 1;
            next.drain = Drain::Moves { why, moved, due };
        } else {
            assert!(self.read >= due, "left behind for a second nap: {self:#?}");
            next.drain = Drain::Offers { why, moved };
        }
        next
    }

    fn offer(&self, why: For, moved: usize, rest_after: RestAfter) -> Vec<Self> {
        let mut next = self.clone();
        next.outbox.offer(&mut next.slot);
        let purpose = match why {
            For::Records => {
                let rest = rest_after(&next.outbox, moved);
                let look = self.asks > 0 && moved > 0 && !next.outbox.has_totals();
                let looks = look.then(|| Self {
                    asks: self.asks - 1,
                    ..next.moves(For::Loss(moved))
                });
                return looks.into_iter().chain([next.rests(rest)]).collect();
            }
            For::Summary => Purpose::Summary,
            For::Loss(_) => Purpose::Loss,
            For::Stop => Purpose::Stop("".into()),
        };
        let totals = next.totals(purpose);
        next.outbox.put(totals);
        next.outbox.offer(&mut next.slot);
        vec![match why {
            For::Records | For::Summary => next.moves(For::Records),
            For::Loss(moved) => next.rests(rest_after(&next.outbox, moved)),
            For::Stop => next.with(Drain::Finishes),
        }]
    }

    fn rests(&self, rest: Rest) -> Self {
        let full = self.slot.0.is_some();
        assert!(!self.outbox.waits() || full, "kept back: {self:#?}");
        self.with(Drain::Rests(rest))
    }

    fn rest(&self, rest: Rest) -> Vec<Self> {
        let mut all = vec![self.with(Drain::Detached)];
        if self.asks > 0 {
            all.push(Self {
                asks: self.asks - 1,
                ..self.moves(For::Summary)
            });
        }
        if rest == Rest::Nap || self.woken {
            all.push(Self {
                woken: self.woken && rest == Rest::Nap,
                ..self.moves(For::Records)
            });
        }
        all
    }

    fn totals(&self, purpose: Purpose) -> Snapshot {
        Snapshot {
            purpose,
            counters: Counters {
                endings: self.reserved().into(),
                ring_full: self.ring_full.into(),
                ..Counters::default()
            },
            in_map: 0,
            dropped: self.outbox.dropped(),
        }
    }

    fn worker_step(&self) -> Option<Self> {
        let mut next = self.clone();
        match (self.worker, next.slot.0.take()) {
            (Worker::Waits, Some(batch)) => {
                next.worker = Worker::Writes;
                next.write(batch);
            }
            (Worker::Waits, None) if self.drain == Drain::Ended => next.worker = Worker::Ended,
            (Worker::Writes, batch) => {
                next.worker = Worker::Waits;
                next.slot = Slot(batch);
            }
            (Worker::Waits | Worker::Ended, _) => return None,
        }
        Some(next)
    }

    /// Records come in their order, totals behind those that led to them.
    fn write(&mut self, batch: Batch) {
        let (before, totals) = batch.snapshot.unzip();
        for (at, record) in batch.records.iter().enumerate() {
            if before == Some(at) {
                self.tell(totals.as_deref());
            }
            assert!(record[NUMBER] >= self.delivered_to, "out of order");
            self.delivered_to = record[NUMBER] + 1;
            self.delivered += 1;
        }
        if before == Some(batch.records.len()) {
            self.tell(totals.as_deref());
        }
    }

    /// No totals have more than there was, and what was dropped only grows.
    fn tell(&mut self, totals: Option<&Snapshot>) {
        let totals = totals.expect("totals where the batch says so");
        let now_dropped = dropped(totals.dropped);
        let handled = u64::from(self.delivered) + now_dropped;
        assert!(handled <= totals.counters.endings, "{self:#?}");
        assert!(self.told_dropped <= now_dropped, "{self:#?}");
        self.told_dropped = now_dropped;
        match totals.purpose {
            Purpose::Summary | Purpose::Loss => {}
            Purpose::Stop(_) => self.told = Some(totals.clone()),
        }
    }

    /// What must hold at every moment.
    pub(super) fn check(&self) {
        let in_slot = self.slot.0.as_ref().map_or(0, |batch| batch.records.len());
        let in_ring = self.ring.len() - usize::from(self.holds);
        let found = usize::from(self.delivered) + in_slot + self.outbox.records() + in_ring;
        let counted = dropped(self.outbox.dropped());
        let all = u64::try_from(found).unwrap() + counted;
        assert_eq!(all, u64::from(self.reserved()), "{self:#?}");
        if self.drain == Drain::Rests(Rest::UntilWoken) && !self.woken {
            let wakes = |program: &Program| match program {
                Program::Idle => false,
                Program::Fills(number) | Program::Looks(number) => *number == self.read,
            };
            let is_woken = self.ring.is_empty() || self.programs.iter().any(wakes);
            assert!(is_woken, "nobody wakes the drain: {self:#?}");
            assert!(!self.outbox.waits(), "nobody wakes the drain: {self:#?}");
        }
    }

    /// What must hold where nothing can happen any more.
    pub(super) fn check_end(&self) {
        if self.drain == Drain::Stuck {
            assert!(self.slot.0.is_some() || self.worker != Worker::Ended);
            return;
        }
        assert_eq!((self.drain, self.worker), (Drain::Ended, Worker::Ended));
        let told = self.told.as_ref().unwrap();
        assert_eq!(told, &self.totals(Purpose::Stop("".into())), "{self:#?}");
        let handled = u64::from(self.delivered) + dropped(told.dropped);
        assert_eq!(handled, told.counters.endings, "{self:#?}");
    }
}
