//! Diagnosis of attempts: runs the rules, caches their results by case, and collects the host's
//! answers for the recording.

use std::{sync::Arc, time::Instant};

use crate::{
    diagnosis,
    diagnosis::{Case, DiagnosisResult, Evidence, Undiagnosed, question},
    host::{AnswerCache, AttemptRef, BoundedMap, HostClient, Lookup, RecordedAnswer, WAIT_MAX},
    record::{Attempt, Verdict},
    sys::Backlog,
};

/// Maximum number of cached cases; the cache is cleared when full.
const CASES_MAX: usize = 4096;

/// Finds the cause of an attempt's ending.
pub struct Diagnoser {
    /// Results by case, each valid as long as the answers it is based on.
    cases: BoundedMap<Case, Remembered>,
    known: AnswerCache,
    /// Queries the host; `None` in a replay.
    scout: Option<HostClient>,
    /// Answers since the last call of [`take_told`](Self::take_told).
    told: Vec<RecordedAnswer>,
}

#[derive(Clone)]
struct Remembered {
    until_ns: u64,
    diagnosed: DiagnosisResult,
}

impl Diagnoser {
    /// Creates a diagnoser that queries this host.
    #[must_use]
    pub fn live() -> Self {
        let scout = HostClient::start();
        if let Err(error) = &scout {
            log::warn!("no causes: cannot start the thread that queries the host: {error}");
        }
        Self {
            scout: scout.ok(),
            ..Self::of_recording()
        }
    }

    /// Creates a diagnoser that uses only recorded answers (see [`tell`](Self::tell)).
    #[must_use]
    pub fn of_recording() -> Self {
        Self {
            cases: BoundedMap::new(CASES_MAX),
            known: AnswerCache::default(),
            scout: None,
            told: Vec::new(),
        }
    }

    /// Sets the backlog to watch: while it is large the host is not queried, so that no records are
    /// lost.
    pub fn heed(&mut self, backlog: Backlog) {
        if let Some(scout) = &mut self.scout {
            scout.heed(backlog);
        }
    }

    /// Adds an answer from a recording.
    pub fn tell(&mut self, told: RecordedAnswer) {
        self.known.put(told);
    }

    /// Returns the cause of the attempt's ending, if there is evidence.
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

    /// Returns the answers since the last call, for a recording.
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

/// A diagnosis in progress.
struct Asking<'a> {
    known: &'a mut AnswerCache,
    scout: Option<&'a mut HostClient>,
    told: &'a mut Vec<RecordedAnswer>,
    about: AttemptRef,
    /// Time limit of the queries; set by the first one.
    until: Option<Instant>,
    /// Time until which all answers are valid.
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
            // The next entry of the recording may hold the answer.
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
