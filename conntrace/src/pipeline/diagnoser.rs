//! Looks for causes: asks the rules, remembers what they said of cases like this
//! one, and keeps what was answered for the recording.

use std::{sync::Arc, time::Instant};

use crate::{
    diagnosis,
    diagnosis::{Case, DiagnosisResult, Evidence, Undiagnosed, question},
    host::{AnswerCache, AttemptRef, BoundedMap, HostClient, Lookup, RecordedAnswer, WAIT_MAX},
    record::{Attempt, Verdict},
    sys::Backlog,
};

/// How many cases are remembered; then it starts over.
const CASES_MAX: usize = 4096;

/// Looks for causes.
pub struct Diagnoser {
    /// What the rules said, and until when the answers hold that they had.
    cases: BoundedMap<Case, Remembered>,
    known: AnswerCache,
    /// Looks at the host; `None` in a replay.
    scout: Option<HostClient>,
    /// What was answered since it was last taken.
    told: Vec<RecordedAnswer>,
}

#[derive(Clone)]
struct Remembered {
    until_ns: u64,
    diagnosed: DiagnosisResult,
}

impl Diagnoser {
    /// Looks at this host.
    #[must_use]
    pub fn live() -> Self {
        let scout = HostClient::start();
        if let Err(error) = &scout {
            log::warn!("no causes: cannot start the thread that looks for them: {error}");
        }
        Self {
            scout: scout.ok(),
            ..Self::of_recording()
        }
    }

    /// Looks at nothing but what it is [`told`](Self::tell).
    #[must_use]
    pub fn of_recording() -> Self {
        Self {
            cases: BoundedMap::new(CASES_MAX),
            known: AnswerCache::default(),
            scout: None,
            told: Vec::new(),
        }
    }

    /// Looks at nothing while so many records wait that some could be lost.
    pub fn heed(&mut self, backlog: Backlog) {
        if let Some(scout) = &mut self.scout {
            scout.heed(backlog);
        }
    }

    /// Takes an answer from a recording.
    pub fn tell(&mut self, told: RecordedAnswer) {
        self.known.put(told);
    }

    /// Why the attempt ended so, if there is evidence.
    pub fn cause(&mut self, attempt: &Attempt, verdict: &Verdict) -> DiagnosisResult {
        if !diagnosis::has_causes(verdict.label) {
            return DiagnosisResult::default();
        }
        let case = Case::new(attempt, verdict);
        let at_ns = attempt.at_ns;
        let known = self.cases.get(&case).filter(|case| at_ns < case.until_ns);
        match known {
            Some(known) => known.diagnosed.clone(),
            None => self.ask(case, attempt).diagnosed,
        }
    }

    /// The answers since the last call, for a recording.
    pub fn take_told(&mut self) -> Vec<RecordedAnswer> {
        std::mem::take(&mut self.told)
    }

    fn ask(&mut self, case: Case, attempt: &Attempt) -> Remembered {
        self.told.clear();
        let mut asking = Asking {
            known: &mut self.known,
            scout: self.scout.as_mut(),
            told: &mut self.told,
            about: AttemptRef::of(attempt),
            until: None,
            until_ns: u64::MAX,
        };
        let (cause, undiagnosed) = diagnosis::diagnose(&case, &mut asking);
        let remembered = Remembered {
            until_ns: asking.until_ns,
            diagnosed: DiagnosisResult {
                cause: cause.map(|cause| Arc::new(cause.into())),
                undiagnosed,
            },
        };
        self.cases.insert(case, remembered.clone());
        remembered
    }
}

/// One diagnosis under way.
struct Asking<'a> {
    known: &'a mut AnswerCache,
    scout: Option<&'a mut HostClient>,
    told: &'a mut Vec<RecordedAnswer>,
    about: AttemptRef,
    /// Until when it may take; set by the first look.
    until: Option<Instant>,
    /// Until when all answers hold.
    until_ns: u64,
}

impl Evidence for Asking<'_> {
    fn answer(&mut self, question: question::Question) -> Result<question::Answer, Undiagnosed> {
        match self.known.get(&question, &self.about) {
            Some((until_ns, found)) => {
                self.until_ns = self.until_ns.min(until_ns);
                found.clone().into()
            }
            None => self.look(question).into(),
        }
    }
}

impl Asking<'_> {
    fn look(&mut self, question: question::Question) -> Lookup {
        let Some(scout) = &mut self.scout else {
            // The next entry of the recording may tell.
            self.until_ns = 0;
            return Lookup::Unknown(Undiagnosed::NoTime);
        };
        let until = *self.until.get_or_insert_with(|| Instant::now() + WAIT_MAX);
        let found = scout.look(&question, &self.about, until);
        let told = RecordedAnswer {
            asked_ns: self.about.at_ns,
            netns_mix: self.about.netns_mix,
            question,
            found: found.clone(),
        };
        self.told.push(told.clone());
        self.until_ns = self.until_ns.min(self.known.put(told));
        found
    }
}
