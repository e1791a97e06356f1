//! Evidence of a diagnosis under way.

use crate::{
    diagnosis::{
        Evidence, Undiagnosed,
        question::{Answer, Question},
    },
    host::{AnswerCache, AttemptRef, RecordedAnswer},
};

/// Run of the rules with the answers that are there.
pub(super) struct RuleRun<'a> {
    pub(super) about: &'a AttemptRef,
    pub(super) answers: &'a mut Vec<RecordedAnswer>,
    pub(super) cache: &'a AnswerCache,
    /// Time up to which cached answers are too old.
    pub(super) ignored_ns: u64,
    /// Time until which all answers are valid.
    pub(super) until_ns: u64,
    /// First question without an answer; the rules' result is void then.
    pub(super) missing: Option<Question>,
}

impl Evidence for RuleRun<'_> {
    fn answer(&mut self, question: Question) -> Result<Answer, Undiagnosed> {
        if self.missing.is_some() {
            return Err(Undiagnosed::NoTime);
        }
        let own = self.answers.iter().find(|own| own.question == question);
        if let Some(own) = own {
            self.until_ns = self.until_ns.min(AnswerCache::until_ns(own));
            return own.found.clone().into();
        }
        let cached = self.cache.recorded(&question, self.about);
        if let Some(cached) = cached.filter(|cached| cached.asked_ns > self.ignored_ns) {
            self.until_ns = self.until_ns.min(AnswerCache::until_ns(&cached));
            let found = cached.found.clone();
            self.answers.push(cached);
            return found.into();
        }
        self.missing = Some(question);
        Err(Undiagnosed::NoTime)
    }
}
