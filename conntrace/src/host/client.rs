//! The worker's side of the host inspector: sends questions and limits the wait for answers.

use std::{
    io,
    sync::mpsc::{Receiver, Sender},
    time::{Duration, Instant},
};

use super::{
    answer_cache::Lookup, inspector::HostInspector, netns::AttemptRef, responder::Responder,
};
use crate::{
    diagnosis::{
        Undiagnosed,
        question::{Answer, Question},
    },
    sys::Backlog,
};

/// Time limit for all questions about one attempt.
pub(crate) const WAIT_MAX: Duration = Duration::from_millis(100);
/// Period over which the number of questions and the waiting time are limited.
const PERIOD: Duration = Duration::from_secs(1);
/// Maximum number of questions per period. In a storm of distinct failures this drops causes
/// instead of lines.
const QUESTIONS_MAX: u32 = 400;
/// Maximum time the worker waits per period.
const WAITED_MAX: Duration = Duration::from_millis(600);

struct Request {
    number: u64,
    question: Question,
    about: AttemptRef,
    until: Instant,
}

type Response = (u64, Result<Answer, Undiagnosed>);

/// Handle to the inspector thread.
pub(crate) struct HostClient {
    inspector: Responder<Request, Response>,
    /// Number of the last request.
    number: u64,
    budget: LookupBudget,
    /// Records waiting in the ring.
    backlog: Backlog,
}

impl HostClient {
    /// Starts the inspector thread.
    ///
    /// # Errors
    /// Fails when the thread cannot be started.
    pub(crate) fn start() -> io::Result<Self> {
        Ok(Self {
            inspector: Responder::start("conntrace-look", serve)?,
            number: 0,
            budget: LookupBudget::new(Instant::now()),
            backlog: Backlog::default(),
        })
    }

    /// Sets the backlog to watch: while it is large no questions are asked, so that no records are
    /// lost while waiting for a cause.
    pub(crate) fn watch_backlog(&mut self, backlog: Backlog) {
        self.backlog = backlog;
    }

    /// Asks the question and waits for the answer until `until`.
    pub(crate) fn query(
        &mut self,
        question: &Question,
        about: &AttemptRef,
        until: Instant,
    ) -> Lookup {
        let began = Instant::now();
        if began >= until || self.backlog.is_large() || !self.budget.admits(began) {
            return Lookup::Unknown(Undiagnosed::NoTime);
        }
        let found = self.ask(question, about, until);
        self.budget.waited += began.elapsed();
        found
    }

    fn ask(&mut self, question: &Question, about: &AttemptRef, until: Instant) -> Lookup {
        // Answers to earlier questions came too late.
        while self.inspector.poll().is_ok() {}
        self.number += 1;
        let request = Request {
            number: self.number,
            question: question.clone(),
            about: *about,
            until,
        };
        if !self.inspector.send(request) {
            return Lookup::Unknown(Undiagnosed::NoTime);
        }
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.inspector.wait(left) {
                Ok((number, answer)) if number == self.number => {
                    return answer.into();
                }
                Ok(_) => {}
                Err(_) => return Lookup::Unknown(Undiagnosed::NoTime),
            }
        }
    }
}

fn serve(requests: &Receiver<Request>, responses: &Sender<Response>) {
    let mut inspector = match HostInspector::new() {
        Ok(inspector) => inspector,
        Err(error) => {
            log::warn!("no causes: cannot open this thread's network namespace: {error}");
            return;
        }
    };
    for request in requests {
        // The worker has stopped waiting for this answer.
        if Instant::now() >= request.until {
            continue;
        }
        let answer = inspector.answer(&request.question, &request.about, request.until);
        if responses.send((request.number, answer)).is_err() {
            return;
        }
        if inspector.is_stranded() {
            log::warn!("no further causes: cannot return to the own network namespace");
            return;
        }
    }
}

/// Questions asked and time waited in the current period.
struct LookupBudget {
    began: Instant,
    questions: u32,
    waited: Duration,
}

impl LookupBudget {
    fn new(began: Instant) -> Self {
        Self {
            began,
            questions: 0,
            waited: Duration::ZERO,
        }
    }

    /// Counts one more question and returns true if the budget allows it.
    fn admits(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.began) >= PERIOD {
            *self = Self::new(now);
        }
        self.questions += 1;
        self.questions <= QUESTIONS_MAX && self.waited < WAITED_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_are_limited() {
        let now = Instant::now();
        let mut budget = LookupBudget::new(now);
        let admitted = (0..2 * QUESTIONS_MAX).filter(|_| budget.admits(now));
        assert_eq!(admitted.count(), QUESTIONS_MAX as usize);
        assert!(budget.admits(now + PERIOD));
        budget.waited = WAITED_MAX;
        assert!(!budget.admits(now + PERIOD));
    }

    #[test]
    fn nobody_waits_beyond_the_time() {
        let mut client = HostClient::start().unwrap();
        let about = AttemptRef {
            process: None,
            tid: None,
            netns_mix: 0,
            at_ns: 0,
        };
        let question = Question::DropReason { number: u16::MAX };
        let now = Instant::now();
        assert_eq!(
            client.query(&question, &about, now),
            Lookup::Unknown(Undiagnosed::NoTime)
        );
        let until = now + Duration::from_secs(20);
        let unknown = Lookup::Unknown(Undiagnosed::Unsupported);
        assert_eq!(client.query(&question, &about, until), unknown);
    }
}
