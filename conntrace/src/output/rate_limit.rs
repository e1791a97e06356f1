//! Rate limit (`--limit`): lines per second for each cgroup, thread name, remote and label.
//! Suppressed lines are counted.
//!
//! Time is an argument, and comes from the kernel: a replay suppresses the same lines.

use std::num::NonZeroU64;

use foldhash::HashMap;

use crate::record::{Attempt, Comm, Label, Remote};

/// Length of a window, which begins with its first line.
const WINDOW_NS: u64 = 1_000_000_000;
/// Maximum number of keys limited separately; further ones share a window.
const KEYS_MAX: usize = 4096;

/// Key of lines that share a limit. A service that starts a process for each attempt has one key,
/// as have all processes with the same cgroup and name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct LimitKey {
    /// Cgroup and thread name; `None` if the caller is unknown.
    caller: Option<(Option<u64>, Comm)>,
    remote: Option<Remote>,
    /// Label of an outcome; `None` for a stall.
    label: Option<Label>,
}

impl LimitKey {
    /// Builds the key of an attempt's line: an outcome with this label, or a stall.
    #[must_use]
    pub(crate) fn new(attempt: &Attempt, label: Option<Label>) -> Self {
        let caller = attempt.caller.as_ref();
        Self {
            caller: caller.map(|caller| (caller.cgroup_id, caller.comm)),
            remote: attempt.remote,
            label,
        }
    }
}

/// Window of lines that share a limit.
#[derive(Debug, Clone, Copy, Default)]
struct LimitWindow {
    began_ns: u64,
    printed: u64,
    /// Lines suppressed since the last one printed.
    suppressed: u64,
}

impl LimitWindow {
    fn end_ns(&self) -> u64 {
        self.began_ns.saturating_add(WINDOW_NS)
    }

    /// Admits a line and returns the number suppressed before it, or counts it as suppressed.
    fn admit(&mut self, at_ns: u64, lines: NonZeroU64) -> Option<u64> {
        if self.printed == 0 || at_ns >= self.end_ns() {
            (self.began_ns, self.printed) = (at_ns, 0);
        }
        if self.printed < lines.get() {
            self.printed += 1;
            return Some(std::mem::take(&mut self.suppressed));
        }
        self.suppressed += 1;
        None
    }
}

/// Decides which lines are suppressed, and counts them.
#[derive(Debug, Default)]
pub(crate) struct Limit {
    /// Lines per window; `None` for no limit.
    lines: Option<NonZeroU64>,
    windows: HashMap<LimitKey, LimitWindow>,
    /// Window shared by all keys without room in the table. It also reports lines suppressed for
    /// evicted keys.
    others: LimitWindow,
    /// Earliest end of a window in a full table, `CLOCK_BOOTTIME` nanoseconds: no room can be made
    /// before.
    full_until_ns: u64,
    suppressed: u64,
}

impl Limit {
    /// Creates a limit of this many lines per window.
    #[must_use]
    pub(crate) fn new(lines: Option<NonZeroU64>) -> Self {
        Self {
            lines,
            ..Self::default()
        }
    }

    /// Admits a line and returns the number suppressed since the last one admitted; `None` if it is
    /// suppressed.
    pub(crate) fn admit(&mut self, key: LimitKey, at_ns: u64) -> Option<u64> {
        let Some(lines) = self.lines else {
            return Some(0);
        };
        let admitted = self.window(key, at_ns).admit(at_ns, lines);
        if admitted.is_none() {
            self.suppressed += 1;
        }
        admitted
    }

    /// Returns the number of lines suppressed so far.
    #[must_use]
    pub(crate) fn suppressed(&self) -> u64 {
        self.suppressed
    }

    fn window(&mut self, key: LimitKey, at_ns: u64) -> &mut LimitWindow {
        if !self.windows.contains_key(&key) && !self.has_room(at_ns) {
            return &mut self.others;
        }
        self.windows.entry(key).or_insert(LimitWindow {
            began_ns: at_ns,
            ..LimitWindow::default()
        })
    }

    /// Returns true if another key fits, after evicting expired windows.
    fn has_room(&mut self, at_ns: u64) -> bool {
        if self.windows.len() >= KEYS_MAX && at_ns >= self.full_until_ns {
            // The shared window reports the lines suppressed for evicted keys.
            let others = &mut self.others;
            self.windows.retain(|_, window| {
                let stays = at_ns < window.end_ns();
                if !stays {
                    others.suppressed += window.suppressed;
                }
                stays
            });
            let ends = self.windows.values().map(LimitWindow::end_ns);
            self.full_until_ns = ends.min().unwrap_or_default();
        }
        self.windows.len() < KEYS_MAX
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::{decode, decode::tests::refused};

    const SECOND: u64 = WINDOW_NS;

    fn limit(lines: u64) -> Limit {
        Limit::new(NonZeroU64::new(lines))
    }

    fn attempt() -> Attempt {
        decode(&refused()).unwrap()
    }

    fn key() -> LimitKey {
        LimitKey::new(&attempt(), Some(Label::Refused))
    }

    fn of_cgroup(id: u32) -> LimitKey {
        let (_, comm) = key().caller.unwrap();
        LimitKey {
            caller: Some((Some(u64::from(id)), comm)),
            ..key()
        }
    }

    #[test]
    fn without_a_limit_every_line_is_printed() {
        let mut limit = limit(0);
        assert!((0..10_000).all(|at| limit.admit(key(), at) == Some(0)));
        assert_eq!(limit.suppressed(), 0);
        assert!(limit.windows.is_empty());
    }

    #[test]
    fn the_surplus_is_told_by_the_next_line() {
        let mut limit = limit(2);
        let began = 7 * SECOND;
        let mut at = |ns| limit.admit(key(), ns);
        assert_eq!([at(began), at(began + 1)], [Some(0), Some(0)]);
        assert_eq!([at(began + 2), at(began + SECOND - 1)], [None, None]);
        assert_eq!([at(began + SECOND), at(began + SECOND)], [Some(2), Some(0)]);
        assert_eq!(at(began + SECOND), None);
        // Much later: the window begins with the line.
        assert_eq!(at(began + 90 * SECOND), Some(1));
        assert_eq!(at(began + 91 * SECOND - 1), Some(0));
        assert_eq!(at(began + 91 * SECOND - 1), None);
        assert_eq!(limit.suppressed(), 4);
    }

    #[test]
    fn another_cgroup_name_remote_or_label_has_a_window_of_its_own() {
        let mut limit = limit(1);
        let mut other_remote = key();
        other_remote.remote.as_mut().unwrap().port += 1;
        let mut other_name = attempt();
        other_name.caller.as_mut().unwrap().comm = Comm(*b"another-name\0\0\0\0");
        // Another process of the same service, from another local port.
        let mut same = attempt();
        let caller = same.caller.as_mut().unwrap();
        (caller.pid, caller.tid, caller.started_ns) = (7, Some(8), 9);
        same.local_port = Some(1);
        assert_eq!(limit.admit(key(), 0), Some(0));
        assert_eq!(
            limit.admit(LimitKey::new(&same, Some(Label::Refused)), 0),
            None
        );
        for other in [
            of_cgroup(1),
            other_remote,
            LimitKey::new(&attempt(), Some(Label::TimedOut)),
            LimitKey::new(&attempt(), None),
            LimitKey::new(&other_name, Some(Label::Refused)),
        ] {
            assert_eq!(limit.admit(other, 0), Some(0), "{other:?}");
            assert_eq!(limit.admit(other, 0), None, "{other:?}");
        }
    }

    /// Records of several CPUs can be slightly out of order.
    #[test]
    fn an_earlier_moment_belongs_to_the_window() {
        let mut limit = limit(1);
        assert_eq!(limit.admit(key(), SECOND), Some(0));
        assert_eq!(limit.admit(key(), 0), None);
        assert_eq!(limit.admit(key(), u64::MAX), Some(1));
        assert_eq!(limit.admit(key(), 0), None);
    }

    #[test]
    fn what_a_full_table_has_no_room_for_is_limited_together() {
        let mut limit = limit(1);
        let watched = u32::try_from(KEYS_MAX).unwrap();
        for id in 0..watched {
            assert_eq!(limit.admit(of_cgroup(id), u64::from(id)), Some(0));
        }
        assert_eq!(limit.admit(of_cgroup(0), 5), None);
        let more =
            |limit: &mut Limit, at| [0, 1, 2].map(|n| limit.admit(of_cgroup(watched + n), at));
        assert_eq!(more(&mut limit, SECOND - 1), [Some(0), None, None]);
        assert_eq!(limit.admit(of_cgroup(1), SECOND), None, "still watched");
        // Only the first key's window has expired: its place goes to the next.
        assert_eq!(limit.admit(of_cgroup(watched), SECOND), Some(0));
        assert_eq!(limit.admit(of_cgroup(watched), SECOND), None);
        assert_eq!(limit.windows.len(), KEYS_MAX);
        // The shared window began with its first line.
        assert_eq!(limit.admit(of_cgroup(0), SECOND), None);
        assert_eq!(
            limit.admit(of_cgroup(0), 2 * SECOND - 2),
            Some(0),
            "there is room again"
        );
        assert_eq!(limit.suppressed(), 6, "that of the first included");
        // All windows have expired.
        assert_eq!(limit.admit(of_cgroup(watched + 1), 9 * SECOND), Some(0));
        assert_eq!(limit.admit(of_cgroup(watched + 1), 9 * SECOND), None);
    }

    #[test]
    fn what_was_left_out_of_a_forgotten_key_is_told_by_another() {
        let mut limit = limit(1);
        let watched = u32::try_from(KEYS_MAX).unwrap();
        assert_eq!(
            [0, 1, 2].map(|at| limit.admit(key(), at)),
            [Some(0), None, None]
        );
        for id in 1..watched {
            assert_eq!(limit.admit(of_cgroup(id), SECOND - 1), Some(0));
        }
        // The first key's window has expired: it makes room, and again for the next but one.
        assert_eq!(limit.admit(of_cgroup(watched), SECOND), Some(0));
        assert_eq!(limit.admit(of_cgroup(watched + 1), SECOND + 1), Some(2));
        assert_eq!(limit.suppressed(), 2);
    }

    proptest! {
        /// Printed and suppressed lines add up; no window exceeds the limit; each line reports the
        /// number suppressed since the last.
        #[test]
        fn adds_up(
            lines in 1u64..5,
            steps in prop::collection::vec((0u32..4, 0u64..SECOND / 2), 0..300),
        ) {
            let mut limit = limit(lines);
            let (mut at_ns, mut printed, mut reported) = (0, 0, 0);
            let mut pending: HashMap<u32, u64> = HashMap::default();
            let mut windows: HashMap<u32, (u64, u64)> = HashMap::default();
            for &(pid, step) in &steps {
                at_ns += step;
                let pending = pending.entry(pid).or_default();
                let Some(before) = limit.admit(of_cgroup(pid), at_ns) else {
                    *pending += 1;
                    continue;
                };
                printed += 1;
                reported += before;
                prop_assert_eq!(before, std::mem::take(pending));
                let window = windows.entry(pid).or_insert((at_ns, 0));
                if at_ns >= window.0 + SECOND {
                    *window = (at_ns, 0);
                }
                window.1 += 1;
                prop_assert!(window.1 <= lines);
            }
            prop_assert_eq!(printed + limit.suppressed(), steps.len() as u64);
            prop_assert_eq!(reported + pending.values().sum::<u64>(), limit.suppressed());
        }
    }
}
