//! Cache of the host's answers, each valid for a second (`no_time` for 100 ms). A live run fills it
//! by looks at the host, a replay from the recording.
//!
//! Time is that of the attempt at hand (`CLOCK_BOOTTIME`), so that live and replay expire answers
//! alike.

use serde::{Deserialize, Serialize};

use super::{cache::BoundedMap, netns::AttemptRef};
use crate::diagnosis::{
    Undiagnosed,
    question::{Answer, Question},
};

/// Lifetime of an answer, in nanoseconds.
const VALID_NS: u64 = 1_000_000_000;
/// Time before a question is repeated that was dropped for lack of time, in nanoseconds.
const BUSY_NS: u64 = 100_000_000;
/// Maximum number of cached answers; the cache is cleared when full.
const LEN_MAX: usize = 1024;

/// Outcome of a question to the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lookup {
    /// The question was answered.
    Answer(Answer),
    /// The question could not be answered, for this reason.
    Unknown(Undiagnosed),
}

impl From<Result<Answer, Undiagnosed>> for Lookup {
    fn from(result: Result<Answer, Undiagnosed>) -> Self {
        result.map_or_else(Self::Unknown, Self::Answer)
    }
}

impl From<Lookup> for Result<Answer, Undiagnosed> {
    fn from(found: Lookup) -> Self {
        match found {
            Lookup::Answer(answer) => Ok(answer),
            Lookup::Unknown(reason) => Err(reason),
        }
    }
}

/// An answer as a recording holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedAnswer {
    /// Beginning of the look, `CLOCK_BOOTTIME` nanoseconds.
    pub asked_ns: u64,
    /// Random bits that identify that attempt's network namespace.
    pub netns_mix: u16,
    /// Question that was asked.
    pub question: Question,
    /// Answer, or the reason there is none.
    pub found: Lookup,
}

/// Answers of the last second, by question.
#[derive(Debug)]
pub(crate) struct AnswerCache(BoundedMap<Question, Answered>);

impl Default for AnswerCache {
    fn default() -> Self {
        Self(BoundedMap::new(LEN_MAX))
    }
}

#[derive(Debug)]
struct Answered {
    asked_ns: u64,
    netns_mix: u16,
    found: Lookup,
}

impl AnswerCache {
    /// Returns true if an answer to a question that was asked about one attempt is one about another
    /// as well.
    pub(crate) fn serves(question: &Question, asked: &AttemptRef, about: &AttemptRef) -> bool {
        let is_of_it = !question.is_of_namespace() || about.is_of(asked.at_ns, asked.netns_mix);
        is_of_it && about.at_ns < asked.at_ns.saturating_add(VALID_NS)
    }

    /// Returns the time until which an answer is valid, in nanoseconds of `CLOCK_BOOTTIME`.
    pub(crate) fn until_ns(answer: &RecordedAnswer) -> u64 {
        answer.asked_ns.saturating_add(validity(&answer.found))
    }

    /// Returns the cached answer to a question about this attempt, as a recording holds it.
    pub(crate) fn recorded(
        &self,
        question: &Question,
        about: &AttemptRef,
    ) -> Option<RecordedAnswer> {
        self.get(question, about)?;
        let Answered {
            asked_ns,
            netns_mix,
            found,
        } = self.0.get(question)?;
        Some(RecordedAnswer {
            asked_ns: *asked_ns,
            netns_mix: *netns_mix,
            question: question.clone(),
            found: found.clone(),
        })
    }

    /// Returns the cached answer to a question about this attempt, and the time it expires.
    ///
    /// A namespace's inode number can be reused. An answer about a namespace counts only if its
    /// random bits match, or, where they are unknown, if the process already existed then.
    pub(crate) fn get(&self, question: &Question, about: &AttemptRef) -> Option<(u64, &Lookup)> {
        let Answered {
            asked_ns,
            netns_mix,
            found,
        } = self.0.get(question)?;
        let until_ns = asked_ns.saturating_add(validity(found));
        let is_of_it = !question.is_of_namespace() || about.is_of(*asked_ns, *netns_mix);
        (is_of_it && about.at_ns < until_ns).then_some((until_ns, found))
    }

    /// Stores an answer and returns the time it expires.
    pub(crate) fn put(&mut self, answer: RecordedAnswer) -> u64 {
        let RecordedAnswer {
            asked_ns,
            netns_mix,
            question,
            found,
        } = answer;
        let until_ns = asked_ns.saturating_add(validity(&found));
        let answered = Answered {
            asked_ns,
            netns_mix,
            found,
        };
        self.0.insert(question, answered);
        until_ns
    }
}

fn validity(found: &Lookup) -> u64 {
    match found {
        Lookup::Unknown(Undiagnosed::NoTime) => BUSY_NS,
        Lookup::Answer(_) | Lookup::Unknown(_) => VALID_NS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::question::ProcessKey;

    fn answer(number: u16, asked_ns: u64, found: Lookup) -> RecordedAnswer {
        RecordedAnswer {
            asked_ns,
            netns_mix: 0,
            question: Question::DropReason { number },
            found,
        }
    }

    fn at(at_ns: u64) -> AttemptRef {
        AttemptRef {
            process: None,
            tid: None,
            netns_mix: 0,
            at_ns,
            client: None,
        }
    }

    #[test]
    fn answers_hold_for_a_second() {
        let mut cache = AnswerCache::default();
        let question = Question::DropReason { number: 1 };
        assert_eq!(cache.get(&question, &at(5)), None);
        let until = cache.put(answer(1, 5, Lookup::Unknown(Undiagnosed::NoAccess)));
        assert_eq!(
            cache.get(&question, &at(until - 1)),
            Some((until, &Lookup::Unknown(Undiagnosed::NoAccess)))
        );
        assert_eq!(cache.get(&question, &at(until)), None);
        let until = cache.put(answer(1, 5, Lookup::Unknown(Undiagnosed::NoTime)));
        assert_eq!(until, 5 + BUSY_NS);
    }

    #[test]
    fn a_later_process_may_be_in_another_namespace() {
        let mut cache = AnswerCache::default();
        let question = Question::Door { netns: 7 };
        let by = |started_ns| AttemptRef {
            process: Some(ProcessKey { pid: 1, started_ns }),
            ..at(100)
        };
        let answer = |netns_mix| RecordedAnswer {
            asked_ns: 50,
            netns_mix,
            question: question.clone(),
            found: Lookup::Unknown(Undiagnosed::NoAccess),
        };
        cache.put(answer(0));
        assert!(cache.get(&question, &by(50)).is_some());
        assert!(cache.get(&question, &by(51)).is_none());
        let of_namespace = |netns_mix| AttemptRef {
            netns_mix,
            ..by(51)
        };
        assert!(cache.get(&question, &of_namespace(1)).is_none());
        cache.put(answer(1));
        assert!(cache.get(&question, &of_namespace(1)).is_some());
        assert!(cache.get(&question, &of_namespace(2)).is_none());
        cache.put(self::answer(1, 50, Lookup::Unknown(Undiagnosed::NoAccess)));
        let question = Question::DropReason { number: 1 };
        assert!(cache.get(&question, &by(51)).is_some());
    }
}
