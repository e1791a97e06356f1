//! Looks at all namespaces of the machine.

use std::{io, time::Instant};

use super::{
    AttemptRef, Namespaces, is_before,
    list::{AllNamespaces, ListAge},
    reason,
};
use crate::{diagnosis::Undiagnosed, host::netlink};

/// Findings in other namespaces than one.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::host) struct FoundElsewhere<T> {
    /// Namespaces in which something was found.
    pub(super) found: Vec<(u32, T)>,
    /// Reason why something may have been missed; `None` if nothing was.
    pub(super) missed: Option<Undiagnosed>,
    /// Time as of which the namespaces are known, `CLOCK_BOOTTIME` nanoseconds.
    pub(in crate::host) as_of_ns: u64,
}

impl<T> FoundElsewhere<T> {
    /// Returns what was found, of which there may be more.
    ///
    /// # Errors
    /// Fails when nothing was found, and not all namespaces were looked at.
    pub(in crate::host) fn some_or_unknown(self) -> Result<Vec<(u32, T)>, Undiagnosed> {
        match self.missed {
            Some(reason) if self.found.is_empty() => Err(reason),
            Some(_) | None => Ok(self.found),
        }
    }

    /// Returns everything that is to be found.
    ///
    /// # Errors
    /// Fails when not all namespaces were looked at.
    pub(in crate::host) fn all(self) -> Result<Vec<(u32, T)>, Undiagnosed> {
        self.missed.map_or(Ok(self.found), Err)
    }
}

/// Namespaces to be looked at: all but one.
#[derive(Debug, Clone, Copy)]
pub(in crate::host) struct OtherNamespaces<'a> {
    /// Number of the one that is left out.
    pub(in crate::host) than: u32,
    pub(in crate::host) about: &'a AttemptRef,
    pub(in crate::host) until: Instant,
    /// Number of findings that are enough.
    pub(in crate::host) max: usize,
    /// Age that their list may have.
    pub(in crate::host) age: ListAge,
}

impl Namespaces {
    /// Runs `look` in other namespaces, the thread's own first, until enough is found. It gets the
    /// namespace's number. Where `lacks` is true there is nothing to be found.
    ///
    /// A namespace that ended meanwhile is not among those that were missed. The list is made anew
    /// for it once, because another process may lead into it.
    pub(in crate::host) fn others<T>(
        &mut self,
        others: OtherNamespaces<'_>,
        lacks: impl Fn(u32) -> bool,
        look: impl Fn(u32) -> io::Result<Option<T>>,
    ) -> FoundElsewhere<T> {
        let AllNamespaces {
            numbers: mut all,
            missed,
            as_of_ns,
        } = self.list.all(others.about.at_ns, others.age, others.until);
        all.retain(|other| *other != others.than && !self.is_home(*other));
        if !self.is_home(others.than) {
            all.insert(0, self.home_inode);
        }
        all.retain(|other| !lacks(*other));
        let mut seen = FoundElsewhere {
            found: Vec::new(),
            missed,
            as_of_ns,
        };
        let ended = self.look_at(all, others, &look, &mut seen);
        if !ended.is_empty() {
            if let Err(reason) = self.list.search(others.until) {
                seen.missed.get_or_insert(reason);
            }
            self.look_at(ended, others, &look, &mut seen);
        }
        seen
    }

    /// Looks at these namespaces. Returns those into which no known path leads.
    fn look_at<T>(
        &mut self,
        all: Vec<u32>,
        others: OtherNamespaces<'_>,
        look: &impl Fn(u32) -> io::Result<Option<T>>,
        seen: &mut FoundElsewhere<T>,
    ) -> Vec<u32> {
        let OtherNamespaces {
            about, until, max, ..
        } = others;
        let mut ended = Vec::new();
        for other in all {
            if seen.found.len() >= max {
                break;
            }
            if Instant::now() >= until {
                seen.missed.get_or_insert(Undiagnosed::NoTime);
                break;
            }
            let looked = if self.is_home(other) {
                let found = netlink::bounded(until, || look(other)).map_err(|error| reason(&error));
                found.map(|found| (found, true))
            } else if let Some(reason) = self.list.refused(other) {
                Err(reason)
            } else if let Some((namespace, path)) = self.open_listed(other, |_| true) {
                let found = self.enter(other, &namespace, until, || look(other));
                // A later process may lead into a later namespace with the same number.
                found.map(|found| {
                    let is_sure = found.is_none() || is_before(&path, about);
                    (found, is_sure)
                })
            } else {
                ended.push(other);
                continue;
            };
            match looked {
                Ok((Some(found), true)) => seen.found.push((other, found)),
                Ok((Some(_), false)) => {
                    seen.missed.get_or_insert(Undiagnosed::Incomplete);
                }
                Ok((None, _)) => {}
                Err(reason) => {
                    seen.missed.get_or_insert(reason);
                }
            }
        }
        ended
    }
}
