//! Kernel time to wall time.

use jiff::{SignedDuration, Timestamp};
use nix::{
    sys::time::TimeSpec,
    time::{ClockId, clock_gettime},
};

/// The distance from `CLOCK_BOOTTIME`, which the records carry, to wall time.
/// It changes only when the wall clock is set, so it is taken anew for every
/// batch: a record is milliseconds old then.
#[derive(Debug, Clone, Copy, Default)]
pub struct WallClock {
    boot_to_wall: SignedDuration,
}

impl WallClock {
    /// Reads both clocks.
    ///
    /// # Errors
    /// When the kernel has no such clock.
    pub fn now() -> nix::Result<Self> {
        let before = duration(clock_gettime(ClockId::CLOCK_REALTIME)?);
        let boot = duration(clock_gettime(ClockId::CLOCK_BOOTTIME)?);
        let after = duration(clock_gettime(ClockId::CLOCK_REALTIME)?);
        let wall = before + (after - before) / 2;
        Ok(Self {
            boot_to_wall: wall - boot,
        })
    }

    /// Wall time of a moment of `CLOCK_BOOTTIME`, in nanoseconds. A moment that
    /// no calendar holds (from a damaged record) becomes the epoch.
    #[must_use]
    pub fn at(&self, boot_ns: u64) -> Timestamp {
        let boot = i64::try_from(boot_ns).map(SignedDuration::from_nanos);
        boot.ok()
            .and_then(|boot| boot.checked_add(self.boot_to_wall))
            .and_then(|wall| Timestamp::from_duration(wall).ok())
            .unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

fn duration(time: TimeSpec) -> SignedDuration {
    SignedDuration::from_secs(time.tv_sec()) + SignedDuration::from_nanos(time.tv_nsec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_a_set_clock() {
        let clock = WallClock {
            boot_to_wall: SignedDuration::from_secs(1_000),
        };
        assert_eq!(
            clock.at(2_500_000_001).to_string(),
            "1970-01-01T00:16:42.500000001Z"
        );
        let stepped = WallClock {
            boot_to_wall: clock.boot_to_wall + SignedDuration::from_hours(1),
        };
        assert_eq!(
            stepped.at(7).duration_since(clock.at(7)),
            SignedDuration::from_hours(1)
        );
        assert_eq!(clock.at(u64::MAX), Timestamp::UNIX_EPOCH);
    }

    #[test]
    fn agrees_with_the_wall_clock() {
        let boot = duration(clock_gettime(ClockId::CLOCK_BOOTTIME).unwrap());
        let boot_ns = u64::try_from(boot.as_nanos()).unwrap();
        let off = WallClock::now()
            .unwrap()
            .at(boot_ns)
            .duration_since(Timestamp::now());
        assert!(off.abs() < SignedDuration::from_millis(50), "{off:?}");
    }
}
