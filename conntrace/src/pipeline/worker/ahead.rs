//! Looks at executables ahead of the next batch of records.
//!
//! A look serves only attempts that began before it. One that is made just before the ring is read
//! serves nearly all of a busy process's attempts in it, so that their lines need not wait. The few
//! that wait are served by the next one.

use std::time::Instant;

use super::Worker;
use crate::host::{ExeKey, ExeRequest, Share};

/// Maximum number of processes whose executables are looked for ahead.
const PROCESSES_MAX: usize = 16;
/// Number of records in a batch from which a process is likely to be in the next one.
const BUSY_MIN: u32 = 4;

/// Processes of the last batch of records, and the looks that are made ahead of the next one.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    seen: Vec<SeenProcess>,
    /// Executables of the processes that were expected in this batch.
    expected: Vec<ExeKey>,
    /// Looks for lines of this batch, made with those ahead of the next one.
    deferred: Vec<DeferredLook>,
    /// Executables that are being looked for.
    awaited: Vec<ExeKey>,
}

#[derive(Debug)]
struct DeferredLook {
    request: Box<ExeRequest>,
    share: Share,
    until: Instant,
}

#[derive(Debug)]
struct SeenProcess {
    request: Box<ExeRequest>,
    share: Share,
    /// Number of its records in the batch.
    records: u32,
}

impl Ahead {
    /// Notes a record of a process, which this request would look for.
    pub(super) fn saw(&mut self, key: ExeKey, share: Share, request: impl FnOnce() -> ExeRequest) {
        if let Some(seen) = self.seen.iter_mut().find(|it| it.request.key() == key) {
            seen.records = seen.records.saturating_add(1);
        } else if self.seen.len() < PROCESSES_MAX {
            self.seen.push(SeenProcess {
                request: Box::new(request()),
                share,
                records: 1,
            });
        }
    }

    /// Takes the processes that are likely to be in the next batch.
    fn take_busy(&mut self) -> Vec<(Box<ExeRequest>, Share)> {
        let seen = std::mem::take(&mut self.seen).into_iter();
        let busy = seen.filter(|it| it.records >= BUSY_MIN);
        let busy: Vec<_> = busy.map(|it| (it.request, it.share)).collect();
        self.expected = busy.iter().map(|(request, _)| request.key()).collect();
        busy
    }

    /// Returns true for the executable of a process that was expected in this batch.
    pub(super) fn expects(&self, key: &ExeKey) -> bool {
        self.expected.contains(key)
    }

    /// Defers a look for a line of a process that was expected in this batch, until those ahead of
    /// the next one. Gives it back if the process was not expected.
    pub(super) fn defer(
        &mut self,
        request: Box<ExeRequest>,
        share: Share,
        until: Instant,
    ) -> Option<Box<ExeRequest>> {
        if !self.expects(&request.key()) {
            return Some(request);
        }
        self.deferred.push(DeferredLook {
            request,
            share,
            until,
        });
        None
    }

    /// Notes that an executable was looked for.
    pub(super) fn looked(&mut self, key: &ExeKey) {
        self.awaited.retain(|awaited| awaited != key);
    }
}

impl Worker {
    /// Looks for the executables of busy processes, ahead of the next batch of records. It must be
    /// called after each batch: lines can wait for it.
    pub fn look_ahead(&mut self, now: Instant) {
        // Of looks that were late there is no answer.
        self.ahead.awaited.clear();
        for look in std::mem::take(&mut self.ahead.deferred) {
            let key = look.request.key();
            if self.find_exe(look.request, look.share, look.until) {
                self.ahead.awaited.push(key);
            }
        }
        let until = now + self.timeout;
        for (request, share) in self.ahead.take_busy() {
            let key = request.key();
            if self.pending.expect_exe(key, (now, until)) && self.find_exe(request, share, until) {
                self.ahead.awaited.push(key);
            }
        }
    }

    /// Returns true while a look ahead is under way.
    #[must_use]
    pub fn is_looking_ahead(&self) -> bool {
        !self.ahead.awaited.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        host::AttemptStart,
        record::{Caller, WallClock, decode},
    };

    fn caller(pid: u32) -> Caller {
        let record = decode::tests::refused();
        Caller {
            pid,
            ..decode::decode(&record).unwrap().caller.unwrap()
        }
    }

    fn see(ahead: &mut Ahead, pid: u32, times: u32) {
        let began = AttemptStart::new(1, &WallClock::default());
        for _ in 0..times {
            let caller = caller(pid);
            let request = ExeRequest::new(&caller, caller.exe.unwrap(), began);
            ahead.saw(request.key(), Share::User(7), || request);
        }
    }

    #[test]
    fn only_busy_processes_are_looked_at_ahead() {
        let mut ahead = Ahead::default();
        see(&mut ahead, 1, BUSY_MIN);
        see(&mut ahead, 2, BUSY_MIN - 1);
        let busy: Vec<u32> = ahead
            .take_busy()
            .iter()
            .map(|(request, _)| request.key().0)
            .collect();
        assert_eq!(busy, [1]);
        assert!(ahead.take_busy().is_empty(), "each batch anew");
    }

    #[test]
    fn so_many_processes_and_no_more() {
        let mut ahead = Ahead::default();
        for pid in 0..100 {
            see(&mut ahead, pid, BUSY_MIN);
        }
        assert_eq!(ahead.take_busy().len(), PROCESSES_MAX);
    }

    #[test]
    fn only_what_was_expected_is_deferred() {
        let mut ahead = Ahead::default();
        let began = AttemptStart::new(1, &WallClock::default());
        let defer = |ahead: &mut Ahead, pid| {
            let caller = caller(pid);
            let request = ExeRequest::new(&caller, caller.exe.unwrap(), began);
            ahead
                .defer(Box::new(request), Share::User(7), Instant::now())
                .is_none()
        };
        see(&mut ahead, 1, BUSY_MIN);
        assert!(!defer(&mut ahead, 1));
        ahead.take_busy();
        assert!(defer(&mut ahead, 1));
        assert!(!defer(&mut ahead, 2));
    }
}
