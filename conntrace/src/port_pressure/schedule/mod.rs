//! Schedule of socket scans, and the lines for their results. Time is an argument.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use conntrace_common::connects;

use crate::{
    host::{AttemptRef, PortScan, PortScanResult, ScannedPorts},
    output::event::PortUse,
};

/// Usage levels that are reported, in percent of the range.
const LEVELS: [u8; 3] = [50, 80, 95];
/// Usage in percent below which a destination is reported as relieved. Below the lowest level, so
/// that usage around 50 percent does not cause a line every few seconds.
const RELIEF_PERCENT: u32 = 40;

/// Maximum number of remote ports monitored, counted per namespace.
const PORTS_MAX: usize = 64;

/// Minimum pause between two scans.
const PAUSE: Duration = Duration::from_millis(100);
/// Minimum pause as a multiple of the last scan's duration: scans use at most 5 % of a CPU.
const PAUSE_FACTOR: u32 = 20;
/// Interval of the scans that check if a destination above a level is relieved.
const RELIEF_CHECK: Duration = Duration::from_secs(5);
/// Number of connects after a failed scan until the next scan.
const AFTER_FAILURE: u32 = 2048;

/// Key of a scan: namespace and remote port.
type Port = (u32, u16);
/// Local and remote address.
type Ends = (IpAddr, IpAddr);

/// State of the connections to one remote port.
struct Watched {
    /// Attempt of the last hint: it leads into the namespace.
    about: AttemptRef,
    hinted: Instant,
    scanned: Instant,
    /// Connects since the last scan as hinted; about twice the real number at most.
    since: u32,
    /// Number of connects until a destination can reach its next level.
    room: u32,
    /// Highest level reported for each destination above a level.
    levels: HashMap<Ends, u8>,
}

impl Watched {
    /// Returns the time of the next scan, regardless of pauses. It is due when half the room is
    /// used. Hints can understate connects: they are sampled, CPUs count concurrently, and
    /// destinations share a bucket.
    fn due(&self) -> Option<Instant> {
        if self.since > 0 && self.since.saturating_mul(2) >= self.room {
            return Some(self.hinted);
        }
        (!self.levels.is_empty()).then(|| self.scanned + RELIEF_CHECK)
    }
}

/// State of all monitored ports.
pub(super) struct ScanSchedule {
    ports: HashMap<Port, Watched>,
    /// True while a scan is running.
    scanning: bool,
    pause_until: Instant,
    /// True once the log has named an excess of destinations.
    has_warned: bool,
}

impl ScanSchedule {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            ports: HashMap::new(),
            scanning: false,
            pause_until: now,
            has_warned: false,
        }
    }

    /// Adds a hint: the number of connects to a destination on this port.
    pub(super) fn hint(&mut self, port: Port, about: AttemptRef, count: u32, now: Instant) {
        if !self.ports.contains_key(&port) && !self.make_room() {
            return;
        }
        let watched = self.ports.entry(port).or_insert_with(|| Watched {
            about,
            hinted: now,
            scanned: now,
            since: 0,
            // The usage is unknown before the first scan.
            room: 0,
            levels: HashMap::new(),
        });
        (watched.about, watched.hinted) = (about, now);
        let told_by = connects::told_by(count);
        watched.since = watched.since.saturating_add(told_by);
    }

    /// Makes room for another port: evicts the one with the oldest hint that has no destination
    /// above a level.
    fn make_room(&mut self) -> bool {
        if self.ports.len() < PORTS_MAX {
            return true;
        }
        let calm = self.ports.iter().filter(|(_, port)| port.levels.is_empty());
        let oldest = calm.min_by_key(|(_, port)| port.hinted);
        let oldest = oldest.map(|(port, _)| *port);
        oldest.is_some_and(|oldest| self.ports.remove(&oldest).is_some())
    }

    /// Returns the time of the next scan; `None` if none is due.
    pub(super) fn next_scan(&self) -> Option<Instant> {
        let due = self.ports.values().filter_map(Watched::due).min()?;
        Some(due.max(self.pause_until))
    }

    /// Returns the scan to run now, if one is due, and marks it as running.
    pub(super) fn start_scan(&mut self, now: Instant) -> Option<PortScan> {
        if self.scanning || now < self.pause_until {
            return None;
        }
        let due = self.ports.iter_mut();
        let due = due.filter(|(_, watched)| watched.due().is_some_and(|due| due <= now));
        // The port that waited longest comes first.
        let (&(netns, port), watched) = due.min_by_key(|(_, watched)| watched.scanned)?;
        self.scanning = true;
        watched.since = 0;
        Some(PortScan {
            netns,
            port,
            about: watched.about,
            percent: RELIEF_PERCENT,
            reported: watched.levels.keys().copied().collect(),
        })
    }

    /// Processes the result of a scan; returns the lines due, each with its level.
    pub(super) fn finish_scan(
        &mut self,
        result: &PortScanResult,
        now: Instant,
    ) -> Vec<(u8, PortUse)> {
        self.scanning = false;
        self.pause_until = now + PAUSE.max(result.took * PAUSE_FACTOR);
        let port = (result.scan.netns, result.scan.port);
        let Some(watched) = self.ports.get_mut(&port) else {
            return Vec::new();
        };
        watched.scanned = now;
        let Some(uses) = &result.found else {
            // Usage is unknown now, so nothing is reported.
            watched.levels.clear();
            watched.room = AFTER_FAILURE;
            return Vec::new();
        };
        if uses.has_more && !self.has_warned {
            self.has_warned = true;
            log::warn!("port_pressure: too many destinations on one port; some are not reported");
        }
        let lines = uses.reported.iter().filter_map(|found| watched.line(found));
        let lines = lines.collect();
        watched.room = watched.room_in(uses);
        lines
    }
}

impl Watched {
    /// Returns the line due for a destination, with its level.
    fn line(&mut self, found: &PortUse) -> Option<(u8, PortUse)> {
        let ends = (found.local, found.remote.ip());
        let known = self.levels.get(&ends).copied();
        let level = level_to_report(known, found.percent())?;
        if level == 0 {
            self.levels.remove(&ends);
        } else {
            self.levels.insert(ends, level);
        }
        Some((level, *found))
    }

    /// Returns the number of connects until a destination can reach its next level.
    fn room_in(&self, uses: &ScannedPorts) -> u32 {
        let until = |level: u8, used| {
            let ports = u64::from(uses.available) * u64::from(level);
            let ports = u32::try_from(ports.div_ceil(100)).unwrap_or(u32::MAX);
            ports.saturating_sub(used)
        };
        let reported = uses.reported.iter().filter_map(|found| {
            let known = self.levels.get(&(found.local, found.remote.ip()));
            let known = known.copied().unwrap_or(0);
            let next = LEVELS.into_iter().find(|level| *level > known)?;
            Some(until(next, found.used))
        });
        let [lowest, ..] = LEVELS;
        let others = until(lowest, uses.most_of_others);
        reported.fold(others, u32::min)
    }
}

/// Returns the level to report, given the level last reported: a higher level reached, or 0 once
/// relieved.
fn level_to_report(known: Option<u8>, percent: u32) -> Option<u8> {
    let reached = LEVELS.into_iter().rev();
    let reached = reached
        .into_iter()
        .find(|level| percent >= u32::from(*level));
    match (known, reached) {
        (known, Some(level)) if known.is_none_or(|known| level > known) => Some(level),
        (Some(_), _) if percent < RELIEF_PERCENT => Some(0),
        (Some(_) | None, _) => None,
    }
}

#[cfg(test)]
mod tests;
