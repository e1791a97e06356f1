//! Counters that the worker receives for totals.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::{
    output::event::{COMM_JSON_MAX, PATH_JSON_MAX, TableLoss},
    record::{Counters, sanitize},
};

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
    /// Number of threads that were abandoned because a look at the host hung.
    pub inspectors_abandoned: u64,
    /// Attempts without a place in the table since this was last set, and who holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<TableLoss>,
}

impl Snapshot {
    /// Returns true if its texts are as short as those of a recorder.
    pub(super) fn fits(&self) -> bool {
        let is_path = |text: &str| sanitize::fits(text, PATH_JSON_MAX);
        let is_short = match &self.purpose {
            Purpose::Stop(reason) => is_path(reason),
            Purpose::Summary | Purpose::Loss => true,
        };
        let top = self.table.as_ref().and_then(|table| table.top.as_ref());
        is_short
            && top.is_none_or(|top| {
                sanitize::fits(&top.comm, COMM_JSON_MAX)
                    && top.cgroup.as_deref().is_none_or(is_path)
            })
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::event::{TopHolder, tests::table_loss};

    #[test]
    fn only_texts_of_a_recorder_fit() {
        let fits = |reason: &str, comm: &str, cgroup: &str| {
            let top = table_loss().top.map(|top| TopHolder {
                comm: comm.to_owned(),
                cgroup: Some(cgroup.into()),
                ..top
            });
            let snapshot = Snapshot {
                purpose: Purpose::Stop(reason.to_owned().into()),
                counters: Counters::default(),
                in_map: 0,
                malformed: 0,
                undelivered: 0,
                inspectors_abandoned: 0,
                table: Some(TableLoss {
                    top,
                    ..table_loss()
                }),
            };
            snapshot.fits()
        };
        let (comm, path) = ("c".repeat(COMM_JSON_MAX), "p".repeat(PATH_JSON_MAX));
        let more = |text: &str| format!("{text}x");
        assert!(fits(&path, &comm, &path));
        assert!(!fits(&more(&path), &comm, &path));
        assert!(!fits(&path, &more(&comm), &path));
        assert!(!fits(&path, &comm, &more(&path)));
    }
}
