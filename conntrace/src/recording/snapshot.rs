//! Counters that the worker receives for totals.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::record::Counters;

/// Counters at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Snapshot {
    /// Line to write with these counters.
    pub purpose: Purpose,
    /// Counters of the kernel side.
    pub counters: Counters,
    /// Number of attempts under way: entries of the table and of the map.
    pub in_map: u64,
    /// Number of records with a wrong length from the ring.
    pub malformed: u64,
    /// Number of lines that were rendered but will not be written.
    pub undelivered: u64,
}

/// Purpose of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Summary line.
    Summary,
    /// Loss line.
    Loss,
    /// Last summary line and stop line, with the reason.
    Stop(Cow<'static, str>),
}
