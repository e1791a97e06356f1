//! Lines that wait for a look at the host, and what the inspectors have found.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd},
    time::Instant,
};

use super::{
    Worker,
    pending::{PendingLine, PendingLines},
};
use crate::{
    diagnosis::{self, Undiagnosed},
    host::{AttemptStart, ExeKey, ExeLookup, ExeRequest, Inspectors, LookAnswer, Share, exe_key},
    output::event::Owner,
    pipeline::{
        diagnosed::{Diagnosed, Diagnosis},
        diagnoser::Diagnoser,
    },
    record::{Attempt, CompleteRecord, Verdict},
    sys,
};

impl Worker {
    /// Returns the owner of an attempt's caller, if its line or the recording needs it, and the look
    /// that tells its executable, if one is needed.
    pub(super) fn owner(
        &mut self,
        attempt: &Attempt,
        verdict: Option<&Verdict>,
        now: Instant,
    ) -> (Option<Owner>, Option<Box<ExeRequest>>) {
        let prints = match verdict {
            Some(verdict) => self.labelling.may_print(attempt, verdict.label),
            None => self.labelling.stalls,
        };
        match &attempt.caller {
            Some(caller) if prints || self.is_thorough => {
                let began = AttemptStart::new(attempt.since_ns, &self.clock);
                if let (Some(exe), Some(_)) = (caller.exe, &self.inspectors) {
                    let key = exe_key(caller, exe);
                    let request = || ExeRequest::new(caller, exe, began);
                    self.ahead.saw(key, Share::of(attempt), request);
                }
                let (owner, exe) = self.callers.owner(caller, began, now);
                if let Some(exe) = &exe {
                    self.find_exe_first(exe, Share::of(attempt), now);
                }
                (Some(owner), exe)
            }
            Some(_) | None => (None, None),
        }
    }

    /// Begins the diagnosis of an attempt, if its line or the recording needs it.
    pub(super) fn diagnosis(
        &mut self,
        attempt: &Attempt,
        verdict: &Verdict,
        now: Instant,
    ) -> Diagnosis {
        let known = |undiagnosed| Diagnosis::Known(Diagnosed::without_answers(undiagnosed));
        let has_no_time = std::mem::take(&mut self.has_no_time);
        let has_causes = diagnosis::may_have_cause(attempt, verdict.label);
        let prints = self.labelling.may_print(attempt, verdict.label);
        if !has_causes || !(prints || self.is_thorough) {
            // A recording's answers are about this record. With other options it needs none.
            if let Some(diagnosis) = &mut self.diagnosis {
                diagnosis.forget_answers();
            }
            return known(None);
        }
        let may_wait = self.pending.has_room(Share::of(attempt));
        match &mut self.diagnosis {
            None => known(Some(Undiagnosed::Off)),
            Some(_) if has_no_time => known(Some(Undiagnosed::NoTime)),
            Some(diagnosis) => {
                diagnosis.begin(attempt, verdict, may_wait, now, self.inspectors.as_mut())
            }
        }
    }

    /// Lets a line wait, and looks for its executable unless another line does.
    pub(super) fn wait(&mut self, record: &CompleteRecord, mut line: PendingLine, now: Instant) {
        let share = Share::of(&line.attempt);
        if !self.pending.has_room(share) {
            line.exe = None;
            // Its diagnosis goes on for the lines that follow.
            return self.write_line(Some(record), line);
        }
        line.record = self.recorder.is_some().then(|| Box::new(*record));
        let (exe, until) = (line.exe.clone(), line.until);
        if self.pending.add(Box::new(line), now)
            && let Some(exe) = exe
            && let Some(exe) = self.ahead.defer(exe, share, until)
        {
            self.find_exe(exe, share, until);
        }
    }

    /// Looks for an executable before all else that the line needs: the caller may soon be another
    /// program. An expected one is looked for ahead of the next batch.
    fn find_exe_first(&mut self, exe: &ExeRequest, share: Share, now: Instant) {
        let (key, until) = (exe.key(), now + self.timeout);
        if !self.ahead.expects(&key) && self.pending.expect_exe(key, (now, until)) {
            self.find_exe(Box::new(exe.clone()), share, until);
        }
    }

    /// Looks for an executable. Without a place for it, the lines that wait for it go on, and this
    /// returns false.
    pub(super) fn find_exe(&mut self, exe: Box<ExeRequest>, share: Share, until: Instant) -> bool {
        let key = exe.key();
        let inspectors = self.inspectors.as_mut();
        let is_asked = inspectors.is_some_and(|them| them.find_exe(exe, share, until));
        if !is_asked {
            for number in self.pending.waiting_for(&key) {
                if let Some(line) = self.pending.get_mut(number) {
                    line.exe = None;
                }
                self.write_ready(number);
            }
        }
        is_asked
    }

    /// Takes what the inspectors have found, and writes the lines that waited for it.
    ///
    /// # Errors
    /// Fails when a direct output cannot be written.
    pub fn settle(&mut self, now: Instant) -> io::Result<()> {
        self.release_due(now)?;
        let answers = self.inspectors.as_mut().map(|them| them.answers(now));
        for answer in answers.into_iter().flatten() {
            match answer {
                LookAnswer::Question(number, found) => {
                    if let Some(diagnosis) = &mut self.diagnosis {
                        diagnosis.answered(number, found, now, self.inspectors.as_mut());
                    }
                }
                LookAnswer::Exe(key, lookup) => self.looked(key, lookup, now),
                LookAnswer::Ports(result) => self.ports_scanned(&result, now),
            }
        }
        let results = self
            .diagnosis
            .as_mut()
            .map(|it| it.results(now, self.inspectors.as_mut()));
        let mut ready = Vec::new();
        for (id, diagnosed) in results.into_iter().flatten() {
            for number in self.pending.diagnosed(id, &diagnosed) {
                let line = self.pending.get_mut(number);
                let is_another_s = line.is_some_and(|line| !diagnosed.is_of(&line.attempt));
                let is_late = diagnosed.result.undiagnosed == Some(Undiagnosed::NoTime);
                if !(is_late || is_another_s) || !self.diagnose_again(number, now) {
                    ready.push(number);
                }
            }
        }
        ready.sort_unstable();
        for number in ready {
            self.write_ready(number);
            self.hand_over_if_due()?;
        }
        while let Some(line) = self.pending.take_late(now) {
            self.write_pending(line);
            self.hand_over_if_due()?;
        }
        if self.pending.is_over() {
            self.pending = PendingLines::default();
            sys::release_freed_memory();
        }
        Ok(())
    }

    /// Begins another diagnosis for a line that has time left when the one that it joined is late.
    /// Returns false if it has none.
    fn diagnose_again(&mut self, number: u64, now: Instant) -> bool {
        let Some(line) = self.pending.get_mut(number) else {
            return false;
        };
        let (Some(verdict), Some(diagnosis)) = (&line.verdict, &mut self.diagnosis) else {
            return false;
        };
        if line.until <= now {
            return false;
        }
        match diagnosis.begin(&line.attempt, verdict, true, now, self.inspectors.as_mut()) {
            Diagnosis::UnderWay(id) => {
                self.pending.wait_for(number, id);
                true
            }
            known @ (Diagnosis::Known(_) | Diagnosis::NoRoom) => {
                line.diagnosis = known;
                false
            }
        }
    }

    pub(super) fn hand_over_if_due(&mut self) -> io::Result<()> {
        if self.output.is_due() {
            self.hand_over()?;
        }
        Ok(())
    }

    /// Takes a look at an executable. A line that it does not tell waits for another one.
    fn looked(&mut self, key: ExeKey, lookup: ExeLookup, now: Instant) {
        self.callers.looked(key, lookup, now);
        self.ahead.looked(&key);
        for number in self.pending.waiting_for(&key) {
            let Some(line) = self.pending.get_mut(number) else {
                continue;
            };
            let Some(request) = &line.exe else {
                continue;
            };
            if let Some(path) = self.callers.exe(request, now) {
                line.exe = None;
                if let Some(owner) = &mut line.owner {
                    owner.exe = path;
                }
                self.write_ready(number);
                continue;
            }
            let (request, share, until) = (request.clone(), Share::of(&line.attempt), line.until);
            if self.pending.wait_for_exe(key, number, (now, until)) {
                self.find_exe(request, share, until);
            }
        }
    }

    /// Writes all lines that wait, with what is known.
    pub(super) fn give_up(&mut self, now: Instant) -> io::Result<()> {
        while let Some(held) = self.late_answers.take_first() {
            self.release(held, now)?;
        }
        let results = self.diagnosis.as_mut().map(|it| it.give_up(now));
        for (id, diagnosed) in results.into_iter().flatten() {
            self.pending.diagnosed(id, &diagnosed);
        }
        while let Some(line) = self.pending.take_first() {
            self.write_pending(line);
            self.hand_over_if_due()?;
        }
        Ok(())
    }

    fn write_ready(&mut self, number: u64) {
        if let Some(line) = self.pending.take_ready(number) {
            self.write_pending(line);
        }
    }

    fn write_pending(&mut self, mut line: Box<PendingLine>) {
        let record = line.record.take();
        self.write_line(record.as_deref(), *line);
    }

    /// Writes a line with what is known.
    pub(super) fn write_line(&mut self, record: Option<&CompleteRecord>, line: PendingLine) {
        let PendingLine {
            attempt,
            clock,
            verdict,
            owner,
            diagnosis,
            ..
        } = line;
        let Some(verdict) = verdict else {
            self.note(record, clock, owner.as_ref(), &[]);
            return self.stall(&attempt, clock, owner);
        };
        let diagnosed = match diagnosis {
            Diagnosis::Known(diagnosed) => diagnosed,
            Diagnosis::UnderWay(_) | Diagnosis::NoRoom => {
                if let Some(recorder) = &mut self.recorder {
                    recorder.no_time();
                }
                Diagnosed::without_answers(Some(Undiagnosed::NoTime))
            }
        };
        let answers = diagnosed.answers_to_record(attempt.at_ns);
        self.note(record, clock, owner.as_ref(), answers);
        self.ended(&attempt, clock, &verdict, owner, diagnosed);
    }

    /// Gives back the memory that looks took, after a while without records. Returns false while a
    /// line waits.
    pub fn tidy(&mut self) -> bool {
        if !self.pending.is_empty() {
            return false;
        }
        self.pending = PendingLines::default();
        if let Some(diagnosis) = &mut self.diagnosis {
            diagnosis.forget_expired();
        }
        sys::release_freed_memory();
        true
    }

    /// Returns true if no line waits for a look.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.pending.is_empty() && self.late_answers.due_at(self.timeout).is_none()
    }

    /// Returns the time of the next call of [`settle`](Self::settle) that has work even without an
    /// answer; `None` while no line waits.
    #[must_use]
    pub fn settle_at(&self) -> Option<Instant> {
        let line = self.pending.late_at();
        let diagnosis = self.diagnosis.as_ref().and_then(Diagnoser::late_at);
        let inspector = self.inspectors.as_ref().and_then(Inspectors::late_at);
        let held = self.late_answers.due_at(self.timeout);
        [line, diagnosis, inspector, held]
            .into_iter()
            .flatten()
            .min()
    }

    /// Returns a descriptor that is readable once an answer has come.
    #[must_use]
    pub fn answers(&self) -> Option<BorrowedFd<'_>> {
        self.inspectors.as_ref().map(Inspectors::as_fd)
    }

    /// Returns the number of threads that were abandoned because a look hung.
    #[must_use]
    pub fn abandoned(&self) -> u64 {
        self.inspectors.as_ref().map_or(0, Inspectors::abandoned)
    }
}
