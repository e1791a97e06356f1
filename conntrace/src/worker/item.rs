//! What the drain hands to the worker.

use std::borrow::Cow;

use conntrace_common::record::RECORD_SIZE;
use serde::{Deserialize, Serialize};

use crate::{agent::Dropped, event::Start, source::Counters};

/// A record's bytes.
pub type WireRecord = [u8; RECORD_SIZE];

/// What the drain hands to the worker.
#[derive(Debug)]
pub enum Item {
    /// Tracing is live.
    Start(Box<Start>),
    /// Wire records, and perhaps totals among them.
    Batch(Batch),
}

/// What gathered while the worker was busy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Batch {
    /// Wire records, in the order they came.
    pub records: Vec<WireRecord>,
    /// Totals, and how many of the records led to them.
    pub snapshot: Option<(usize, Box<Snapshot>)>,
}

impl Batch {
    /// Whether there is anything in it.
    #[must_use]
    pub fn waits(&self) -> bool {
        !self.records.is_empty() || self.snapshot.is_some()
    }
}

/// What the drain and the kernel counted at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Snapshot {
    /// Which line to make of it.
    pub purpose: Purpose,
    /// The kernel side's counters.
    pub counters: Counters,
    /// Entries of the attempt map.
    pub in_map: u64,
    /// Records that never reached the worker.
    pub dropped: Dropped,
}

/// Why a snapshot was taken.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// A summary is due.
    Summary,
    /// Something was lost.
    Loss,
    /// The end, and its reason.
    Stop(Cow<'static, str>),
}
