//! When to look at the sockets, and what line to make of what was found. Pure: time is
//! an argument.

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

/// Percent of the range at which there is a line.
const LEVELS: [u8; 3] = [50, 80, 95];
/// Below this many percent a destination has fallen back. Not at 50, or one that stays
/// there would have a line every few seconds.
const FALLEN_BACK: u32 = 40;

/// How many ports of other hosts are watched, by namespace.
const PORTS_MAX: usize = 64;

/// Between two looks, at least: and this many times what the last one took, so that
/// looking takes no more than a twentieth of a CPU.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_OF_TOOK: u32 = 20;
/// How often it is looked whether a destination above a level has fallen back.
const AGAIN: Duration = Duration::from_secs(5);
/// After a look that failed it takes so many connects until the next.
const AFTER_FAILURE: u32 = 2048;

/// What one look tells of: the namespace, and the port of other hosts.
type Port = (u32, u16);
/// Local and remote address.
type Ends = (IpAddr, IpAddr);

/// What is known of the connections to one port.
struct Watched {
    /// The last attempt that was hinted at: the way into the namespace.
    about: AttemptRef,
    hinted: Instant,
    looked: Instant,
    /// Connects since the last look, by the hints; at most twice as many.
    since: u32,
    /// How many it takes until one of the destinations reaches its next level.
    room: u32,
    /// The highest level that was told, of each destination above one.
    levels: HashMap<Ends, u8>,
}

impl Watched {
    /// When it is due to look, without regard to pauses. Half the room is left: where
    /// CPUs count at the same time, or destinations share a bucket, hints tell of fewer
    /// connects than there were.
    fn due(&self) -> Option<Instant> {
        if self.since > 0 && self.since.saturating_mul(2) >= self.room {
            return Some(self.hinted);
        }
        (!self.levels.is_empty()).then(|| self.looked + AGAIN)
    }
}

/// Everything that is watched.
pub(super) struct ScanSchedule {
    ports: HashMap<Port, Watched>,
    /// A look is under way.
    looking: bool,
    pause_until: Instant,
    /// That there are too many destinations above a level was said.
    told_too_many: bool,
}

impl ScanSchedule {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            ports: HashMap::new(),
            looking: false,
            pause_until: now,
            told_too_many: false,
        }
    }

    /// A hint: so many connects to a destination on this port.
    pub(super) fn hint(&mut self, port: Port, about: AttemptRef, count: u32, now: Instant) {
        if !self.ports.contains_key(&port) && !self.make_room() {
            return;
        }
        let watched = self.ports.entry(port).or_insert_with(|| Watched {
            about,
            hinted: now,
            looked: now,
            since: 0,
            // Nothing is known yet.
            room: 0,
            levels: HashMap::new(),
        });
        (watched.about, watched.hinted) = (about, now);
        let told_by = connects::told_by(count);
        watched.since = watched.since.saturating_add(told_by);
    }

    /// Room for another port: the one gives way that was hinted at the longest ago and
    /// has no destination above a level.
    fn make_room(&mut self) -> bool {
        if self.ports.len() < PORTS_MAX {
            return true;
        }
        let calm = self.ports.iter().filter(|(_, port)| port.levels.is_empty());
        let oldest = calm.min_by_key(|(_, port)| port.hinted);
        let oldest = oldest.map(|(port, _)| *port);
        oldest.is_some_and(|oldest| self.ports.remove(&oldest).is_some())
    }

    pub(super) fn is_looking(&self) -> bool {
        self.looking
    }

    /// When the next look may be taken; `None` if none is due.
    pub(super) fn next_look(&self) -> Option<Instant> {
        let due = self.ports.values().filter_map(Watched::due).min()?;
        Some(due.max(self.pause_until))
    }

    /// The look that is to be taken now, if one is. It is under way then.
    pub(super) fn look(&mut self, now: Instant) -> Option<PortScan> {
        if self.looking || now < self.pause_until {
            return None;
        }
        let due = self.ports.iter_mut();
        let due = due.filter(|(_, watched)| watched.due().is_some_and(|due| due <= now));
        // Each in its turn.
        let (&(netns, port), watched) = due.min_by_key(|(_, watched)| watched.looked)?;
        self.looking = true;
        watched.since = 0;
        Some(PortScan {
            netns,
            port,
            about: watched.about,
            percent: FALLEN_BACK,
            told: watched.levels.keys().copied().collect(),
        })
    }

    /// What came of it: the lines, by level, that are due now.
    pub(super) fn looked(&mut self, looked: &PortScanResult, now: Instant) -> Vec<(u8, PortUse)> {
        self.looking = false;
        self.pause_until = now + PAUSE.max(looked.took * PAUSE_OF_TOOK);
        let port = (looked.look.netns, looked.look.port);
        let Some(watched) = self.ports.get_mut(&port) else {
            return Vec::new();
        };
        watched.looked = now;
        let Some(uses) = &looked.found else {
            // Nothing is known any more, so that nothing is claimed.
            watched.levels.clear();
            watched.room = AFTER_FAILURE;
            return Vec::new();
        };
        if uses.has_more && !self.told_too_many {
            self.told_too_many = true;
            log::warn!("port_pressure: too many destinations of one port, some have no line");
        }
        let lines = uses.told.iter().filter_map(|found| watched.line(found));
        let lines = lines.collect();
        watched.room = watched.room_in(uses);
        lines
    }
}

impl Watched {
    /// The line that is due for a destination, by its level.
    fn line(&mut self, found: &PortUse) -> Option<(u8, PortUse)> {
        let ends = (found.local, found.remote.ip());
        let known = self.levels.get(&ends).copied();
        let level = level_to_tell(known, found.percent())?;
        if level == 0 {
            self.levels.remove(&ends);
        } else {
            self.levels.insert(ends, level);
        }
        Some((level, *found))
    }

    /// How many connects it takes until one of the destinations reaches its next level.
    fn room_in(&self, uses: &ScannedPorts) -> u32 {
        let until = |level: u8, used| {
            let ports = u64::from(uses.available) * u64::from(level);
            let ports = u32::try_from(ports.div_ceil(100)).unwrap_or(u32::MAX);
            ports.saturating_sub(used)
        };
        let told = uses.told.iter().filter_map(|found| {
            let known = self.levels.get(&(found.local, found.remote.ip()));
            let known = known.copied().unwrap_or(0);
            let next = LEVELS.into_iter().find(|level| *level > known)?;
            Some(until(next, found.used))
        });
        let [lowest, ..] = LEVELS;
        let others = until(lowest, uses.most_of_others);
        told.fold(others, u32::min)
    }
}

/// What is to be told of a destination, given what it was told of: a level that it has
/// reached, 0 when it has fallen back.
fn level_to_tell(known: Option<u8>, percent: u32) -> Option<u8> {
    let reached = LEVELS.into_iter().rev();
    let reached = reached
        .into_iter()
        .find(|level| percent >= u32::from(*level));
    match (known, reached) {
        (known, Some(level)) if known.is_none_or(|known| level > known) => Some(level),
        (Some(_), _) if percent < FALLEN_BACK => Some(0),
        (Some(_) | None, _) => None,
    }
}

#[cfg(test)]
mod tests;
