//! The worker's end of the helper: asks, and waits no longer than it may.

use std::{
    io,
    sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    thread,
    time::{Duration, Instant},
};

use super::{answer_cache::Lookup, inspector::HostInspector, netns::AttemptRef};
use crate::{
    diagnosis::{
        Undiagnosed,
        question::{Answer, Question},
    },
    sys::Backlog,
};

/// How long all that is asked about one attempt may take.
pub(crate) const WAIT_MAX: Duration = Duration::from_millis(100);
/// The time over which looks and waiting are limited.
const WINDOW: Duration = Duration::from_secs(1);
/// How many questions are looked into within it: a storm of failures that differ
/// costs causes, not lines.
const LOOKS_MAX: u32 = 400;
/// How long the worker waits within it.
const WAITED_MAX: Duration = Duration::from_millis(600);

struct Request {
    number: u64,
    question: Question,
    about: AttemptRef,
    until: Instant,
}

type Response = (u64, Result<Answer, Undiagnosed>);

/// Asks the helper.
pub(crate) struct HostClient {
    requests: SyncSender<Request>,
    responses: Receiver<Response>,
    /// Of the last request.
    number: u64,
    window: LookupBudget,
    /// Records that wait meanwhile.
    backlog: Backlog,
}

impl HostClient {
    /// Starts the helper's thread.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub(crate) fn start() -> io::Result<Self> {
        // A look under way, and one that waits for its end.
        let (requests, received) = sync_channel::<Request>(1);
        let (sender, responses) = channel();
        thread::Builder::new()
            .name("conntrace-look".to_owned())
            .spawn(move || serve(&received, &sender))?;
        Ok(Self {
            requests,
            responses,
            number: 0,
            window: LookupBudget::new(Instant::now()),
            backlog: Backlog::default(),
        })
    }

    /// From now on nothing is looked at while this is large: endings must not be lost for the
    /// cause of another.
    pub(crate) fn heed(&mut self, backlog: Backlog) {
        self.backlog = backlog;
    }

    /// Looks, but not beyond this time.
    pub(crate) fn look(
        &mut self,
        question: &Question,
        about: &AttemptRef,
        until: Instant,
    ) -> Lookup {
        let began = Instant::now();
        if began >= until || self.backlog.is_large() || !self.window.admits(began) {
            return Lookup::Unknown(Undiagnosed::NoTime);
        }
        let found = self.ask(question, about, until);
        self.window.waited += began.elapsed();
        found
    }

    fn ask(&mut self, question: &Question, about: &AttemptRef, until: Instant) -> Lookup {
        // Late answers to earlier questions are of no use any more.
        while self.responses.try_recv().is_ok() {}
        self.number += 1;
        let request = Request {
            number: self.number,
            question: question.clone(),
            about: *about,
            until,
        };
        if self.requests.try_send(request).is_err() {
            return Lookup::Unknown(Undiagnosed::NoTime);
        }
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.responses.recv_timeout(left) {
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
    let mut helper = match HostInspector::new() {
        Ok(helper) => helper,
        Err(error) => {
            log::warn!("no causes: cannot tell the own network namespace: {error}");
            return;
        }
    };
    for request in requests {
        // Nobody waits for it any more.
        if Instant::now() >= request.until {
            continue;
        }
        let answer = helper.answer(&request.question, &request.about, request.until);
        if responses.send((request.number, answer)).is_err() {
            return;
        }
        if helper.is_stranded() {
            log::warn!("no further causes: cannot get back to the own network namespace");
            return;
        }
    }
}

/// What was spent on looking lately.
struct LookupBudget {
    began: Instant,
    looks: u32,
    waited: Duration,
}

impl LookupBudget {
    fn new(began: Instant) -> Self {
        Self {
            began,
            looks: 0,
            waited: Duration::ZERO,
        }
    }

    /// Whether there may be one more look.
    fn admits(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.began) >= WINDOW {
            *self = Self::new(now);
        }
        self.looks += 1;
        self.looks <= LOOKS_MAX && self.waited < WAITED_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_are_limited() {
        let now = Instant::now();
        let mut window = LookupBudget::new(now);
        let admitted = (0..2 * LOOKS_MAX).filter(|_| window.admits(now));
        assert_eq!(admitted.count(), LOOKS_MAX as usize);
        assert!(window.admits(now + WINDOW));
        window.waited = WAITED_MAX;
        assert!(!window.admits(now + WINDOW));
    }

    #[test]
    fn nobody_waits_beyond_the_time() {
        let mut scout = HostClient::start().unwrap();
        let about = AttemptRef {
            process: None,
            tid: None,
            netns_mix: 0,
            at_ns: 0,
        };
        let question = Question::DropReason { number: u16::MAX };
        let now = Instant::now();
        assert_eq!(
            scout.look(&question, &about, now),
            Lookup::Unknown(Undiagnosed::NoTime)
        );
        let until = now + Duration::from_secs(20);
        let unknown = Lookup::Unknown(Undiagnosed::Unsupported);
        assert_eq!(scout.look(&question, &about, until), unknown);
    }
}
