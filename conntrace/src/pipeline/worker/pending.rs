//! Lines that wait for a look at the host: for their cause, or for the path of an executable.

use std::{collections::BTreeMap, time::Instant};

use foldhash::HashMap;

use crate::{
    host::{ExeKey, ExeRequest, Share},
    output::event::Owner,
    pipeline::diagnosed::{Diagnosed, Diagnosis, DiagnosisId},
    record::{Attempt, CompleteRecord, Verdict, WallClock},
};

/// Maximum number of lines that wait.
const PENDING_MAX: usize = 4096;
/// Maximum number of lines of one share that wait, once half of all places are taken.
const OF_SHARE_MAX: usize = PENDING_MAX / 8;

/// Line that waits.
pub(super) struct PendingLine {
    /// Its record, if there is a recording.
    pub(super) record: Option<Box<CompleteRecord>>,
    pub(super) attempt: Attempt,
    /// Wall clock when the record was read: it may be set while the line waits.
    pub(super) clock: WallClock,
    /// `None` for a stall.
    pub(super) verdict: Option<Verdict>,
    /// Owner of the caller; `None` if the caller is unknown.
    pub(super) owner: Option<Owner>,
    /// Look that tells the owner's executable; `None` if that is known.
    pub(super) exe: Option<Box<ExeRequest>>,
    pub(super) diagnosis: Diagnosis,
    /// Time at which it is written with what is known.
    pub(super) until: Instant,
}

impl PendingLine {
    /// Returns true if nothing is awaited any more.
    pub(super) fn is_ready(&self) -> bool {
        self.exe.is_none() && matches!(self.diagnosis, Diagnosis::Known(_))
    }
}

/// Lines that wait for the path of one executable.
struct Awaited {
    lines: Vec<u64>,
    /// Time at which an inspector may drop the look.
    until: Instant,
}

/// Lines that wait, in the order of their records.
#[derive(Default)]
pub(super) struct PendingLines {
    lines: BTreeMap<u64, Box<PendingLine>>,
    by_diagnosis: HashMap<DiagnosisId, Vec<u64>>,
    by_exe: HashMap<ExeKey, Awaited>,
    of_share: HashMap<Share, usize>,
    last: u64,
    /// Highest number of lines that waited.
    peak: usize,
}

impl PendingLines {
    /// Returns true if a line of this share may wait.
    pub(super) fn has_room(&self, share: Share) -> bool {
        let of_share = self.of_share.get(&share).copied().unwrap_or(0);
        let total = self.lines.len();
        total < PENDING_MAX && (total < PENDING_MAX / 2 || of_share < OF_SHARE_MAX)
    }

    /// Returns true if no line waits, after many did.
    pub(super) fn is_over(&self) -> bool {
        self.lines.is_empty() && self.peak >= PENDING_MAX / 4
    }

    /// Returns true if no line waits.
    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Adds a line. Returns true if its executable must be looked for.
    pub(super) fn add(&mut self, line: Box<PendingLine>, now: Instant) -> bool {
        self.last += 1;
        let number = self.last;
        if let Diagnosis::UnderWay(id) = line.diagnosis {
            self.by_diagnosis.entry(id).or_default().push(number);
        }
        let key = line.exe.as_ref().map(|exe| exe.key());
        let must_look = key.is_some_and(|key| self.wait_for_exe(key, number, (now, line.until)));
        *self.of_share.entry(Share::of(&line.attempt)).or_default() += 1;
        self.lines.insert(number, line);
        self.peak = self.peak.max(self.lines.len());
        must_look
    }

    /// Takes the result of a diagnosis, and returns the numbers of the lines that waited for it.
    pub(super) fn diagnosed(&mut self, id: DiagnosisId, diagnosed: &Diagnosed) -> Vec<u64> {
        let waiting = self.by_diagnosis.remove(&id).unwrap_or_default();
        for number in &waiting {
            if let Some(line) = self.lines.get_mut(number) {
                line.diagnosis = Diagnosis::Known(diagnosed.clone());
            }
        }
        waiting
    }

    /// Returns the numbers of the lines that wait for the path of this executable; they do no
    /// longer.
    pub(super) fn waiting_for(&mut self, exe: &ExeKey) -> Vec<u64> {
        self.by_exe
            .remove(exe)
            .map_or(Vec::new(), |awaited| awaited.lines)
    }

    /// Lets a line wait for a look at its executable until a time. Returns true if there is none
    /// under way.
    pub(super) fn wait_for_exe(
        &mut self,
        exe: ExeKey,
        number: u64,
        times: (Instant, Instant),
    ) -> bool {
        let must_look = self.expect_exe(exe, times);
        if let Some(awaited) = self.by_exe.get_mut(&exe) {
            awaited.lines.push(number);
        }
        must_look
    }

    /// Expects a look at an executable until a time, for lines to come. Returns true if there is none
    /// under way: an inspector drops one that is late.
    pub(super) fn expect_exe(&mut self, exe: ExeKey, (now, until): (Instant, Instant)) -> bool {
        if self.by_exe.len() >= 2 * PENDING_MAX {
            self.by_exe.retain(|_, awaited| !awaited.lines.is_empty());
        }
        let new = || Awaited {
            lines: Vec::new(),
            until: now,
        };
        let awaited = self.by_exe.entry(exe).or_insert_with(new);
        let must_look = awaited.until <= now;
        if must_look {
            awaited.until = until;
        }
        must_look
    }

    /// Lets a line wait for another diagnosis.
    pub(super) fn wait_for(&mut self, number: u64, id: DiagnosisId) {
        if let Some(line) = self.lines.get_mut(&number) {
            line.diagnosis = Diagnosis::UnderWay(id);
            self.by_diagnosis.entry(id).or_default().push(number);
        }
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut PendingLine> {
        self.lines.get_mut(&number).map(Box::as_mut)
    }

    /// Removes a line that is ready; `None` if it still waits.
    pub(super) fn take_ready(&mut self, number: u64) -> Option<Box<PendingLine>> {
        self.lines.get(&number).filter(|line| line.is_ready())?;
        self.take(number)
    }

    /// Removes the first line if it may not wait beyond `now`.
    pub(super) fn take_late(&mut self, now: Instant) -> Option<Box<PendingLine>> {
        let (&number, _) = self
            .lines
            .first_key_value()
            .filter(|(_, it)| it.until <= now)?;
        self.take(number)
    }

    /// Removes the first line.
    pub(super) fn take_first(&mut self) -> Option<Box<PendingLine>> {
        let number = *self.lines.first_key_value()?.0;
        self.take(number)
    }

    /// Returns the time at which the first line must be written; `None` if no line waits.
    pub(super) fn late_at(&self) -> Option<Instant> {
        self.lines.first_key_value().map(|(_, line)| line.until)
    }

    fn take(&mut self, number: u64) -> Option<Box<PendingLine>> {
        let line = self.lines.remove(&number)?;
        let share = Share::of(&line.attempt);
        if let Some(count) = self.of_share.get_mut(&share) {
            *count -= 1;
            if *count == 0 {
                self.of_share.remove(&share);
            }
        }
        if let Some(exe) = &line.exe
            && let Some(awaited) = self.by_exe.get_mut(&exe.key())
        {
            awaited.lines.retain(|other| *other != number);
            if awaited.lines.is_empty() {
                self.by_exe.remove(&exe.key());
            }
        }
        if let Diagnosis::UnderWay(id) = line.diagnosis
            && let Some(numbers) = self.by_diagnosis.get_mut(&id)
        {
            numbers.retain(|other| *other != number);
            if numbers.is_empty() {
                self.by_diagnosis.remove(&id);
            }
        }
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::record::{decode, label::tests::unanswered};

    /// Line of a user, whose diagnosis has this number.
    fn line(uid: u32, id: u64, until: Instant) -> Box<PendingLine> {
        let record = decode::tests::refused();
        let mut attempt = unanswered();
        attempt.caller = decode::decode(&record).unwrap().caller;
        attempt.caller.as_mut().unwrap().uid = uid;
        Box::new(PendingLine {
            record: None,
            attempt,
            clock: WallClock::default(),
            verdict: None,
            owner: None,
            exe: None,
            diagnosis: Diagnosis::UnderWay(DiagnosisId(id)),
            until,
        })
    }

    #[test]
    fn lines_of_one_diagnosis_are_ready_together() {
        let now = Instant::now();
        let mut pending = PendingLines::default();
        for id in [1, 2, 1] {
            assert!(!pending.add(line(7, id, now), now));
        }
        assert!(pending.take_ready(1).is_none());
        let waited = pending.diagnosed(DiagnosisId(1), &Diagnosed::default());
        assert_eq!(waited, [1, 3]);
        assert!(pending.take_ready(1).is_some() && pending.take_ready(3).is_some());
        assert!(pending.take_ready(2).is_none() && !pending.is_empty());
        assert!(
            pending
                .diagnosed(DiagnosisId(1), &Diagnosed::default())
                .is_empty()
        );
    }

    #[test]
    fn a_look_that_was_dropped_is_made_again() {
        let now = Instant::now();
        let (soon, later) = (now + Duration::from_secs(1), now + Duration::from_secs(2));
        let mut pending = PendingLines::default();
        let record = decode::tests::refused();
        let caller = decode::decode(&record).unwrap().caller.unwrap();
        let key = (caller.pid, caller.started_ns, caller.exe.unwrap());
        assert!(pending.wait_for_exe(key, 1, (now, soon)));
        assert!(!pending.wait_for_exe(key, 2, (now, later)));
        assert!(pending.wait_for_exe(key, 3, (soon, later)));
        assert_eq!(pending.waiting_for(&key), [1, 2, 3]);
        assert!(pending.wait_for_exe(key, 4, (soon, later)));
    }

    #[test]
    fn the_first_line_is_late_first() {
        let now = Instant::now();
        let mut pending = PendingLines::default();
        let soon = now + Duration::from_secs(1);
        pending.add(line(7, 1, now), now);
        pending.add(line(7, 1, soon), now);
        assert_eq!(pending.late_at(), Some(now));
        assert!(pending.take_late(now).is_some());
        assert!(pending.take_late(now).is_none());
        assert_eq!(pending.late_at(), Some(soon));
        assert_eq!(
            pending.diagnosed(DiagnosisId(1), &Diagnosed::default()),
            [2]
        );
        assert!(pending.take_first().is_some() && pending.is_empty());
        assert!(pending.of_share.is_empty() && pending.by_diagnosis.is_empty());
    }

    #[test]
    fn a_user_leaves_places_to_the_others() {
        let now = Instant::now();
        let mut pending = PendingLines::default();
        let mut taken = 0;
        while pending.has_room(Share::User(7)) {
            pending.add(line(7, 1, now), now);
            taken += 1;
        }
        assert_eq!(taken, PENDING_MAX / 2);
        for uid in 100.. {
            if !pending.has_room(Share::User(uid)) {
                break;
            }
            for _ in 0..2 * OF_SHARE_MAX {
                if pending.has_room(Share::User(uid)) {
                    pending.add(line(uid, 1, now), now);
                    taken += 1;
                }
            }
        }
        assert_eq!(taken, PENDING_MAX);
    }
}
