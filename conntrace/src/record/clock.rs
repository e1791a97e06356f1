//! Converts kernel time to wall time.

use jiff::{SignedDuration, Timestamp};
use nix::{
    sys::time::TimeSpec,
    time::{ClockId, clock_gettime},
};

/// Tolerance within which the known distance is kept.
const NEARLY: SignedDuration = SignedDuration::from_micros(100);

/// Distance from `CLOCK_BOOTTIME`, the clock of the records, to wall time. It changes only
/// when the wall clock is set or slewed.
#[derive(Debug, Clone, Copy, Default)]
pub struct WallClock {
    boot_to_wall: Option<SignedDuration>,
}

impl WallClock {
    /// Reads both clocks and updates the distance. Must be called for every batch of records,
    /// which are milliseconds old by then.
    ///
    /// # Errors
    /// When the kernel has no such clock.
    pub fn follow(&mut self) -> nix::Result<()> {
        let before = duration(clock_gettime(ClockId::CLOCK_REALTIME)?);
        let boot = duration(clock_gettime(ClockId::CLOCK_BOOTTIME)?);
        let after = duration(clock_gettime(ClockId::CLOCK_REALTIME)?);
        self.learn(before - boot, after - boot);
        Ok(())
    }

    /// Returns the distance, once it is known.
    #[must_use]
    pub fn distance(&self) -> Option<SignedDuration> {
        self.boot_to_wall
    }

    /// Sets the distance, as read from a recording.
    pub fn set(&mut self, distance: SignedDuration) {
        self.boot_to_wall = Some(distance);
    }

    /// Takes the distance from between two bounds. A known distance that nearly fits is kept: a
    /// stall and its outcome then show the same beginning, and attempts of one thread keep their
    /// order, however long it took to read the clocks.
    fn learn(&mut self, low: SignedDuration, high: SignedDuration) {
        let fits = |known: &SignedDuration| (low - NEARLY..=high + NEARLY).contains(known);
        if !self.boot_to_wall.as_ref().is_some_and(fits) {
            self.boot_to_wall = Some(low + (high - low) / 2);
        }
    }

    /// Converts nanoseconds of `CLOCK_BOOTTIME` to wall time. A time out of range, from a damaged
    /// record, becomes the Unix epoch.
    #[must_use]
    pub fn at(&self, boot_ns: u64) -> Timestamp {
        let boot = i64::try_from(boot_ns).map(SignedDuration::from_nanos);
        boot.ok()
            .and_then(|boot| boot.checked_add(self.boot_to_wall?))
            .and_then(|wall| Timestamp::from_duration(wall).ok())
            .unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

/// Reads `CLOCK_BOOTTIME` in nanoseconds; `u64::MAX` if the kernel has no such clock.
#[must_use]
pub(crate) fn boot_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map(duration);
    now.ok()
        .and_then(|now| u64::try_from(now.as_nanos()).ok())
        .unwrap_or(u64::MAX)
}

fn duration(time: TimeSpec) -> SignedDuration {
    SignedDuration::from_secs(time.tv_sec()) + SignedDuration::from_nanos(time.tv_nsec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: i64) -> SignedDuration {
        SignedDuration::from_secs(n)
    }

    #[test]
    fn follows_a_set_clock() {
        let mut clock = WallClock::default();
        clock.learn(seconds(1_000), seconds(1_000));
        let text = clock.at(2_500_000_001).to_string();
        assert_eq!(text, "1970-01-01T00:16:42.500000001Z");
        let before = clock.at(7);
        clock.learn(seconds(4_600), seconds(4_600));
        assert_eq!(clock.at(7).duration_since(before), seconds(3_600));
        assert_eq!(clock.at(u64::MAX), Timestamp::UNIX_EPOCH);
    }

    #[test]
    fn a_slow_look_or_a_small_difference_changes_nothing() {
        let mut clock = WallClock::default();
        clock.learn(seconds(100), seconds(102));
        let before = clock.at(7);
        clock.learn(seconds(90), seconds(130));
        assert_eq!(clock.at(7), before);
        let off = seconds(101) + SignedDuration::from_micros(99);
        clock.learn(off, off);
        assert_eq!(clock.at(7), before);
        clock.learn(seconds(102), seconds(104));
        assert_eq!(clock.at(7).duration_since(before), seconds(2));
    }

    #[test]
    fn agrees_with_the_wall_clock() {
        let mut clock = WallClock::default();
        clock.follow().unwrap();
        let boot = duration(clock_gettime(ClockId::CLOCK_BOOTTIME).unwrap());
        let boot_ns = u64::try_from(boot.as_nanos()).unwrap();
        let off = clock.at(boot_ns).duration_since(Timestamp::now());
        assert!(off.abs() < SignedDuration::from_millis(50), "{off:?}");
    }
}
