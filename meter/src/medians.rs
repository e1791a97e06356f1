//! Medians of operations by state, of some processes each.

use std::collections::BTreeMap;

use anyhow::{Context as _, Error, Result};
use nix::unistd::Pid;

use crate::{
    operation::{OPERATIONS, measure},
    report,
};

/// Processes of each operation, in each pass.
const PROCESSES: usize = 2;

/// Binary and state, in the order in which they were measured.
type Key = (String, String);

/// Figures measured so far.
#[derive(Default)]
pub(crate) struct Medians {
    order: Vec<Key>,
    medians: BTreeMap<(Key, &'static str), Vec<u64>>,
    failed: BTreeMap<Key, String>,
}

impl Medians {
    /// Measures every operation in this state.
    pub(crate) fn operations(
        &mut self,
        number: &str,
        state: &str,
        drained: Option<Pid>,
    ) -> Result<()> {
        let key = self.key(number, state);
        for operation in OPERATIONS {
            for _ in 0..PROCESSES {
                let median = measure(operation, drained)?;
                let medians = self.medians.entry((key.clone(), operation));
                medians.or_default().push(median);
            }
        }
        Ok(())
    }

    /// Takes note of a state that cannot be measured.
    pub(crate) fn fail(&mut self, number: &str, state: &str, error: &Error) {
        let key = self.key(number, state);
        self.failed.insert(key, format!("{error:#}"));
    }

    fn key(&mut self, number: &str, state: &str) -> Key {
        let key = (number.to_owned(), state.to_owned());
        if !self.order.contains(&key) {
            self.order.push(key.clone());
        }
        key
    }

    /// Prints the median of each state and operation, or the reason that there is none.
    pub(crate) fn print(mut self) -> Result<()> {
        for key in self.order {
            let (number, state) = &key;
            if let Some(why) = self.failed.get(&key) {
                report::not_run(number, state, why);
                continue;
            }
            for operation in OPERATIONS {
                let medians = self.medians.get_mut(&(key.clone(), operation));
                let medians = medians.context("every operation was measured")?;
                medians.sort_unstable();
                let median = medians.get((medians.len() - 1) / 2).context("a median")?;
                report::figure("operation", number, &[state, &operation, median]);
            }
        }
        Ok(())
    }
}
