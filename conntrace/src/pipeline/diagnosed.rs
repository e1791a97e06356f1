//! Results of diagnoses, with the answers that they are based on.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    diagnosis::{DiagnosisResult, Undiagnosed},
    host::RecordedAnswer,
    record::Attempt,
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
    /// Client of the only attempt that it is of; `None` if equal cases share it.
    of_client: Option<SocketAddr>,
    /// Answers that it is based on, which equal cases share.
    basis: Option<Arc<Basis>>,
}

/// Answers that a result is based on.
#[derive(Debug)]
struct Basis {
    answers: Vec<RecordedAnswer>,
    /// Time of the newest one, and end of the validity of all, `CLOCK_BOOTTIME` nanoseconds.
    newest_ns: u64,
    until_ns: u64,
    /// Number of the diagnosis.
    number: DiagnosisId,
    /// Number of the diagnosis whose answers the recording has for this case; 0 for none.
    recorded: Arc<AtomicU64>,
}

impl Diagnosed {
    /// Returns a result that is based on these answers, valid until this time. They are kept for a
    /// recording only. `before` is the last result of an equal case.
    pub(super) fn new(
        number: DiagnosisId,
        result: DiagnosisResult,
        of_client: Option<SocketAddr>,
        (answers, until_ns): (Vec<RecordedAnswer>, u64),
        keeps_answers: bool,
        before: Option<&Self>,
    ) -> Self {
        let before = before.and_then(|before| before.basis.as_ref());
        let recorded = before.map_or_else(Arc::default, |before| Arc::clone(&before.recorded));
        let newest = answers.iter().map(|answer| answer.asked_ns).max();
        let basis = Basis {
            answers: if keeps_answers { answers } else { Vec::new() },
            newest_ns: newest.unwrap_or(0),
            until_ns,
            number,
            recorded,
        };
        Self {
            result,
            of_client,
            basis: Some(Arc::new(basis)),
        }
    }

    /// Returns a result that is based on no answer.
    pub(super) fn without_answers(undiagnosed: Option<Undiagnosed>) -> Self {
        Self {
            result: DiagnosisResult {
                undiagnosed,
                ..DiagnosisResult::default()
            },
            of_client: None,
            basis: None,
        }
    }

    /// Returns true if it is that of this attempt, whose case is equal.
    pub(super) fn is_of(&self, attempt: &Attempt) -> bool {
        self.of_client.is_none() || self.of_client == attempt.client()
    }

    /// Returns the end of its validity, `CLOCK_BOOTTIME` nanoseconds; `None` if it needs no answers.
    pub(super) fn until_ns(&self) -> Option<u64> {
        Some(self.basis.as_ref()?.until_ns)
    }

    /// Returns the time of its newest answer, `CLOCK_BOOTTIME` nanoseconds.
    pub(super) fn newest_ns(&self) -> u64 {
        self.basis.as_ref().map_or(0, |basis| basis.newest_ns)
    }

    /// Returns the answers that a recording needs before an attempt that ended at `at_ns`: all, unless
    /// the last attempt of the same case had them, and they are still valid in the replay.
    pub(super) fn answers_to_record(&self, at_ns: u64) -> &[RecordedAnswer] {
        match &self.basis {
            Some(basis)
                if basis.recorded.swap(basis.number.0, Ordering::Relaxed) != basis.number.0
                    || at_ns >= basis.until_ns =>
            {
                &basis.answers
            }
            Some(_) | None => &[],
        }
    }
}
