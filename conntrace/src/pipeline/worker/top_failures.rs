//! Most frequent failures since the last summary.

use std::cmp::Reverse;

use foldhash::HashMap;

use crate::{
    output::event::{COMM_JSON_MAX, Endpoint, Top},
    record::{Attempt, Comm, Label, Remote, sanitize},
};

/// Maximum number of distinct failures counted between two summaries.
const KEYS_MAX: usize = 4096;
/// Maximum number of failures in a summary.
const LEN: usize = 10;

/// Counts of failures since the last summary, by thread name, remote and label.
#[derive(Debug, Default)]
pub(super) struct TopFailures(HashMap<(Option<Comm>, Option<Remote>, Label), u64>);

impl TopFailures {
    pub(super) fn count(&mut self, attempt: &Attempt, label: Label) {
        let comm = attempt.caller.as_ref().map(|caller| caller.comm);
        let key = (comm, attempt.remote, label);
        if let Some(count) = self.0.get_mut(&key) {
            *count += 1;
        } else if self.0.len() < KEYS_MAX {
            self.0.insert(key, 1);
        }
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Returns the most frequent failures, in descending order.
    pub(super) fn most(&self) -> Vec<Top> {
        let mut top: Vec<_> = self.0.iter().collect();
        top.sort_by_key(|&(&(comm, remote, label), &count)| {
            let to = remote.map(|remote| (remote.addr, remote.port));
            (Reverse(count), comm.map(|comm| comm.0), to, label)
        });
        top.into_iter()
            .take(LEN)
            .map(|(&(comm, remote, label), &count)| Top {
                comm: comm.map(|comm| sanitize::bounded(comm.as_bytes(), COMM_JSON_MAX)),
                remote: Endpoint {
                    addr: remote.map(|remote| remote.addr),
                    port: remote.map(|remote| remote.port),
                },
                label,
                count,
            })
            .collect()
    }
}
