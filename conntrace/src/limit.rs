//! `--limit`: at most so many outcome lines a second per process, remote and
//! label. What is left out is counted.
//!
//! Time is an argument, and it is the kernel's: a replay leaves out the same
//! lines.

use std::{collections::HashMap, num::NonZeroU64};

use crate::{
    label::Label,
    wire::{Attempt, Remote},
};

/// How long a window lasts. It begins with its first line.
const WINDOW_NS: u64 = 1_000_000_000;
/// How many lines of a kind are watched at once; more are all printed.
const KEYS_MAX: usize = 4096;

/// Lines that are like one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    /// Its pid, and its start, which tells it from a later one with that pid;
    /// `None` where nobody knows whose attempt it was.
    process: Option<(u32, u64)>,
    remote: Option<Remote>,
    label: Label,
}

impl Key {
    /// What a line of this attempt and label is like.
    #[must_use]
    pub fn new(attempt: &Attempt, label: Label) -> Self {
        let caller = attempt.caller.as_ref();
        Self {
            process: caller.map(|caller| (caller.pid, caller.started_ns)),
            remote: attempt.remote,
            label,
        }
    }
}

/// A second of lines that are like one another.
#[derive(Debug)]
struct Window {
    began_ns: u64,
    printed: u64,
    /// Left out since the last one printed.
    suppressed: u64,
}

impl Window {
    fn end_ns(&self) -> u64 {
        self.began_ns.saturating_add(WINDOW_NS)
    }
}

/// Decides which lines are left out, and counts them.
#[derive(Debug, Default)]
pub struct Limit {
    /// Lines in a window; `None` for no limit.
    lines: Option<NonZeroU64>,
    windows: HashMap<Key, Window>,
    /// When the first window of a full table is over: before that there is no
    /// use in looking for one.
    full_until_ns: u64,
    suppressed: u64,
}

impl Limit {
    /// Lets so many lines through.
    #[must_use]
    pub fn new(lines: Option<NonZeroU64>) -> Self {
        Self {
            lines,
            ..Self::default()
        }
    }

    /// Whether a line of this moment is printed: then how many like it were left
    /// out before it, otherwise `None`.
    pub fn admit(&mut self, key: Key, at_ns: u64) -> Option<u64> {
        let Some(lines) = self.lines else {
            return Some(0);
        };
        let Some(window) = self.windows.get_mut(&key) else {
            self.watch(key, at_ns);
            return Some(0);
        };
        if at_ns >= window.end_ns() {
            (window.began_ns, window.printed) = (at_ns, 0);
        }
        if window.printed < lines.get() {
            window.printed += 1;
            return Some(std::mem::take(&mut window.suppressed));
        }
        window.suppressed += 1;
        self.suppressed += 1;
        None
    }

    /// Lines left out so far.
    #[must_use]
    pub fn suppressed(&self) -> u64 {
        self.suppressed
    }

    /// Opens a window with its first line, if there is room for it. Nothing is
    /// left out that is not watched.
    fn watch(&mut self, key: Key, at_ns: u64) {
        if self.windows.len() >= KEYS_MAX && at_ns >= self.full_until_ns {
            self.windows.retain(|_, window| at_ns < window.end_ns());
            let ends = self.windows.values().map(Window::end_ns);
            self.full_until_ns = ends.min().unwrap_or_default();
        }
        if self.windows.len() < KEYS_MAX {
            let window = Window {
                began_ns: at_ns,
                printed: 1,
                suppressed: 0,
            };
            self.windows.insert(key, window);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::{decode, tests::refused};

    const SECOND: u64 = WINDOW_NS;

    fn limit(lines: u64) -> Limit {
        Limit::new(NonZeroU64::new(lines))
    }

    fn attempt() -> Attempt {
        decode(&refused()).unwrap()
    }

    fn key() -> Key {
        Key::new(&attempt(), Label::Refused)
    }

    fn of_pid(pid: u32) -> Key {
        Key {
            process: Some((pid, 0)),
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
        // Long after: the window begins with the line.
        assert_eq!(at(began + 90 * SECOND), Some(1));
        assert_eq!(at(began + 91 * SECOND - 1), Some(0));
        assert_eq!(at(began + 91 * SECOND - 1), None);
        assert_eq!(limit.suppressed(), 4);
    }

    #[test]
    fn another_process_remote_or_label_has_a_window_of_its_own() {
        let mut limit = limit(1);
        let mut other_remote = key();
        other_remote.remote.as_mut().unwrap().port += 1;
        let mut next_life = attempt();
        next_life.caller.as_mut().unwrap().started_ns += 1;
        // Another thread of the process, from another port.
        let mut same = attempt();
        same.caller.as_mut().unwrap().tid = Some(4243);
        same.local_port = Some(1);
        assert_eq!(limit.admit(key(), 0), Some(0));
        assert_eq!(limit.admit(Key::new(&same, Label::Refused), 0), None);
        for other in [
            of_pid(1),
            other_remote,
            Key::new(&attempt(), Label::TimedOut),
            Key::new(&next_life, Label::Refused),
        ] {
            assert_eq!(limit.admit(other, 0), Some(0), "{other:?}");
            assert_eq!(limit.admit(other, 0), None, "{other:?}");
        }
    }

    /// Records of several CPUs are not quite in order.
    #[test]
    fn an_earlier_moment_belongs_to_the_window() {
        let mut limit = limit(1);
        assert_eq!(limit.admit(key(), SECOND), Some(0));
        assert_eq!(limit.admit(key(), 0), None);
        assert_eq!(limit.admit(key(), u64::MAX), Some(1));
        assert_eq!(limit.admit(key(), 0), None);
    }

    #[test]
    fn a_full_table_prints_and_makes_room_when_windows_are_over() {
        let mut limit = limit(1);
        let watched = u32::try_from(KEYS_MAX).unwrap();
        for pid in 0..watched {
            assert_eq!(limit.admit(of_pid(pid), u64::from(pid)), Some(0));
        }
        assert_eq!(limit.admit(of_pid(0), 5), None);
        for _ in 0..3 {
            let further = limit.admit(of_pid(watched), SECOND - 1);
            assert_eq!(further, Some(0), "printed, for it cannot be counted");
        }
        assert_eq!(limit.admit(of_pid(1), SECOND), None, "still watched");
        // Of pid 0 alone is the second over: its place goes to the next.
        assert_eq!(limit.admit(of_pid(watched), SECOND), Some(0));
        assert_eq!(limit.admit(of_pid(watched), SECOND), None);
        assert_eq!(limit.admit(of_pid(0), SECOND), Some(0));
        assert_eq!(limit.admit(of_pid(0), SECOND), Some(0));
        assert_eq!(limit.windows.len(), KEYS_MAX);
        assert_eq!(limit.suppressed(), 3, "that of pid 0 included");
        // All are over.
        assert_eq!(limit.admit(of_pid(watched + 1), 9 * SECOND), Some(0));
        assert_eq!(limit.windows.len(), 1);
    }

    proptest! {
        /// Printed and left out are all; no second from a first line on has more
        /// than the limit; each line tells what was left out since the last.
        #[test]
        fn adds_up(
            lines in 1u64..5,
            steps in prop::collection::vec((0u32..4, 0u64..SECOND / 2), 0..300),
        ) {
            let mut limit = limit(lines);
            let (mut at_ns, mut printed, mut told) = (0, 0, 0);
            let mut pending: HashMap<u32, u64> = HashMap::new();
            let mut windows: HashMap<u32, (u64, u64)> = HashMap::new();
            for &(pid, step) in &steps {
                at_ns += step;
                let pending = pending.entry(pid).or_default();
                let Some(before) = limit.admit(of_pid(pid), at_ns) else {
                    *pending += 1;
                    continue;
                };
                printed += 1;
                told += before;
                prop_assert_eq!(before, std::mem::take(pending));
                let window = windows.entry(pid).or_insert((at_ns, 0));
                if at_ns >= window.0 + SECOND {
                    *window = (at_ns, 0);
                }
                window.1 += 1;
                prop_assert!(window.1 <= lines);
            }
            prop_assert_eq!(printed + limit.suppressed(), steps.len() as u64);
            prop_assert_eq!(told + pending.values().sum::<u64>(), limit.suppressed());
        }
    }
}
