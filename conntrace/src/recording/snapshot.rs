//! What the worker is given.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::record::Counters;

/// Counters at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Snapshot {
    /// Which line to make of it.
    pub purpose: Purpose,
    /// The kernel side's counters.
    pub counters: Counters,
    /// Entries of the attempt map.
    pub in_map: u64,
    /// Number of records from the ring that had another length.
    pub malformed: u64,
    /// Number of lines that were made and will not be written.
    pub undelivered: u64,
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
