//! Looks for causes: asks the rules, remembers what they said of cases like this
//! one, and keeps what was answered for the recording.

use std::{sync::Arc, time::Instant};

use foldhash::HashMap;

use crate::{
    diagnosis,
    diagnosis::{Case, Diagnosed, Evidence, Undiagnosed, question},
    host::{About, Found, Known, Scout, Told, WAIT_MAX},
    record::{Attempt, Verdict},
    sys::Backlog,
};

/// How many cases are remembered; then it starts over.
const CASES_MAX: usize = 4096;

/// Looks for causes.
pub struct Diagnosis {
    /// What the rules said, and until when the answers hold that they had.
    cases: HashMap<Case, Remembered>,
    known: Known,
    /// Looks at the host; `None` in a replay.
    scout: Option<Scout>,
    /// What was answered since it was last taken.
    told: Vec<Told>,
}

#[derive(Clone)]
struct Remembered {
    until_ns: u64,
    diagnosed: Diagnosed,
}

impl Diagnosis {
    /// Looks at this host.
    #[must_use]
    pub fn live() -> Self {
        let scout = Scout::start();
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
            cases: HashMap::default(),
            known: Known::default(),
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
    pub fn tell(&mut self, told: Told) {
        self.known.put(told);
    }

    /// Why the attempt ended so, if there is evidence.
    pub fn cause(&mut self, attempt: &Attempt, verdict: &Verdict) -> Diagnosed {
        if !diagnosis::has_causes(verdict.label) {
            return Diagnosed::default();
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
    pub fn take_told(&mut self) -> Vec<Told> {
        std::mem::take(&mut self.told)
    }

    fn ask(&mut self, case: Case, attempt: &Attempt) -> Remembered {
        self.told.clear();
        let mut asking = Asking {
            known: &mut self.known,
            scout: self.scout.as_mut(),
            told: &mut self.told,
            about: About::of(attempt),
            until: None,
            until_ns: u64::MAX,
        };
        let (cause, undiagnosed) = diagnosis::diagnose(&case, &mut asking);
        let remembered = Remembered {
            until_ns: asking.until_ns,
            diagnosed: Diagnosed {
                cause: cause.map(|cause| Arc::new(cause.into())),
                undiagnosed,
            },
        };
        if self.cases.len() >= CASES_MAX {
            self.cases.clear();
        }
        self.cases.insert(case, remembered.clone());
        remembered
    }
}

/// One diagnosis under way.
struct Asking<'a> {
    known: &'a mut Known,
    scout: Option<&'a mut Scout>,
    told: &'a mut Vec<Told>,
    about: About,
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
    fn look(&mut self, question: question::Question) -> Found {
        let Some(scout) = &mut self.scout else {
            // The next entry of the recording may tell.
            self.until_ns = 0;
            return Found::Unknown(Undiagnosed::NoTime);
        };
        let until = *self.until.get_or_insert_with(|| Instant::now() + WAIT_MAX);
        let found = scout.look(&question, &self.about, until);
        let told = Told {
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
