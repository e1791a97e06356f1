//! Diagnosis of attempts: runs the rules, caches their results by case, and collects the host's
//! answers for the recording.

use std::{sync::Arc, time::Instant};

use crate::{
    diagnosis::{self, Case, DiagnosisResult, Evidence, Undiagnosed, question},
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
    cache: AnswerCache,
    /// Queries the host; `None` in a replay.
    client: Option<HostClient>,
    /// Answers that the last diagnosis received, until
    /// [`take_answers`](Self::take_answers).
    answers: Vec<RecordedAnswer>,
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
        let client = HostClient::start();
        if let Err(error) = &client {
            log::warn!("no causes: cannot start the thread that queries the host: {error}");
        }
        Self {
            client: client.ok(),
            ..Self::of_recording()
        }
    }

    /// Creates a diagnoser that uses only recorded answers (see [`add_answer`](Self::add_answer)).
    #[must_use]
    pub fn of_recording() -> Self {
        Self {
            cases: BoundedMap::new(CASES_MAX),
            cache: AnswerCache::default(),
            client: None,
            answers: Vec::new(),
        }
    }

    /// Sets the backlog to watch: while it is large the host is not queried, so that no records are
    /// lost.
    pub fn watch_backlog(&mut self, backlog: Backlog) {
        if let Some(client) = &mut self.client {
            client.watch_backlog(backlog);
        }
    }

    /// Adds an answer from a recording.
    pub fn add_answer(&mut self, answer: RecordedAnswer) {
        self.cache.put(answer);
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

    /// Takes the answers that the last diagnosis received, for a recording.
    pub fn take_answers(&mut self) -> Vec<RecordedAnswer> {
        std::mem::take(&mut self.answers)
    }

    fn ask(&mut self, case: Case, attempt: &Attempt) -> Remembered {
        self.answers.clear();
        let mut asking = Asking {
            cache: &mut self.cache,
            client: self.client.as_mut(),
            answers: &mut self.answers,
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
    cache: &'a mut AnswerCache,
    client: Option<&'a mut HostClient>,
    answers: &'a mut Vec<RecordedAnswer>,
    about: AttemptRef,
    /// Time limit of the queries; set by the first one.
    until: Option<Instant>,
    /// Time until which all answers are valid.
    until_ns: u64,
}

impl Evidence for Asking<'_> {
    fn answer(&mut self, question: question::Question) -> Result<question::Answer, Undiagnosed> {
        match self.cache.get(&question, &self.about) {
            Some((until_ns, found)) => {
                self.until_ns = self.until_ns.min(until_ns);
                found.clone().into()
            }
            None => self.query(question).into(),
        }
    }
}

impl Asking<'_> {
    fn query(&mut self, question: question::Question) -> Lookup {
        let Some(client) = &mut self.client else {
            // The next entry of the recording may hold the answer.
            self.until_ns = 0;
            return Lookup::Unknown(Undiagnosed::NoTime);
        };
        let until = *self.until.get_or_insert_with(|| Instant::now() + WAIT_MAX);
        let found = client.query(&question, &self.about, until);
        let answer = RecordedAnswer {
            asked_ns: self.about.at_ns,
            netns_mix: self.about.netns_mix,
            question,
            found: found.clone(),
        };
        self.answers.push(answer.clone());
        self.until_ns = self.until_ns.min(self.cache.put(answer));
        found
    }
}
