//! Results of diagnoses, with the answers that they are based on.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crate::{
    diagnosis::{DiagnosisResult, Undiagnosed},
    host::RecordedAnswer,
};

/// Number of a diagnosis under way, in the order of their beginnings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct DiagnosisId(pub(super) u64);

/// Cause of an attempt's ending, now or later.
#[derive(Debug)]
pub(super) enum Diagnosis {
    /// The result is known.
    Known(Diagnosed),
    /// The result comes with [`Diagnoser::results`].
    UnderWay(DiagnosisId),
    /// The result is unknown, and there is no room to wait for it.
    NoRoom,
}

/// Result of a diagnosis.
#[derive(Debug, Clone, Default)]
pub(super) struct Diagnosed {
    /// Cause, and the reason why the search is incomplete.
    pub result: DiagnosisResult,
    /// Answers that it is based on, which equal cases share.
    basis: Option<Arc<Basis>>,
}

/// Answers that a result is based on.
#[derive(Debug, Default)]
struct Basis {
    answers: Vec<RecordedAnswer>,
    /// End of their validity, `CLOCK_BOOTTIME` nanoseconds.
    until_ns: u64,
    /// True once the recording has them.
    is_recorded: AtomicBool,
}

impl Diagnosed {
    /// Returns a result that is based on these answers, valid until this time.
    pub(super) fn new(
        result: DiagnosisResult,
        answers: Vec<RecordedAnswer>,
        until_ns: u64,
    ) -> Self {
        let basis = Basis {
            answers,
            until_ns,
            is_recorded: AtomicBool::new(false),
        };
        Self {
            result,
            basis: Some(Arc::new(basis)),
        }
    }

    /// Returns a result that is based on no answer.
    pub(super) fn without_answers(undiagnosed: Option<Undiagnosed>) -> Self {
        Self {
            result: DiagnosisResult {
                cause: None,
                undiagnosed,
            },
            basis: None,
        }
    }

    /// Returns the end of its validity, `CLOCK_BOOTTIME` nanoseconds; `None` if it needs no answers.
    pub(super) fn until_ns(&self) -> Option<u64> {
        Some(self.basis.as_ref()?.until_ns)
    }

    /// Returns the time of its newest answer, `CLOCK_BOOTTIME` nanoseconds.
    pub(super) fn newest_ns(&self) -> u64 {
        let answers = self.basis.iter().flat_map(|basis| &basis.answers);
        answers.map(|answer| answer.asked_ns).max().unwrap_or(0)
    }

    /// Returns the answers that a recording needs before an attempt that ended at `at_ns`: all, unless
    /// an attempt of the same case had them, and they are still valid in the replay.
    pub(super) fn answers_to_record(&self, at_ns: u64) -> &[RecordedAnswer] {
        match &self.basis {
            Some(basis)
                if !basis.is_recorded.swap(true, Ordering::Relaxed) || at_ns >= basis.until_ns =>
            {
                &basis.answers
            }
            Some(_) | None => &[],
        }
    }
}
