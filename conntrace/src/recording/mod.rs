//! A recording holds everything the worker received, in order, so that a replay makes the same
//! lines on any machine.
//!
//! ```text
//! header   MAGIC, then four u32: VERSION, COMPLETE_SIZE, BYTE_ORDER, checksum of the preceding
//! entry    u32 length of kind and body, u32 checksum of length, kind and body,
//!          u8 kind, body: a complete record, or a Note as JSON
//! ```
//!
//! Numbers are little-endian, except those in a record and `BYTE_ORDER`, which have the
//! recording host's byte order. The first entry is the start, the last the stop; a recording
//! without a stop is incomplete. Entries that a record depends on precede it: the distance to wall
//! time and the owner, each only when changed, and answers about the host.

mod read;
mod snapshot;
mod write;

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

pub use read::{Damage, ReadError, RecordingReader};
pub use write::{CreateError, Recorder};

use crate::{
    host::RecordedAnswer,
    output::event::{
        Container, HOST_JSON_MAX, LINE_LEN_MAX, NAME_JSON_MAX, Owner, PATH_JSON_MAX, PortUse, Start,
    },
    record::{CompleteRecord, history::COMPLETE_SIZE, sanitize},
};
pub use snapshot::{Purpose, Snapshot};

/// First bytes of a recording. The last one marks it as binary.
const MAGIC: [u8; 8] = *b"conntrc\x1a";

/// Version of the format, raised with every change: the reader accepts no other. Magic and version
/// keep their place.
pub const VERSION: u32 = 9;

/// Number that shows the byte order of records.
const BYTE_ORDER: u32 = 0x0102_0304;

/// Size of a record, as the header stores it.
#[expect(clippy::cast_possible_truncation, reason = "it is below ENTRY_LEN_MAX")]
const COMPLETE_SIZE_FIELD: u32 = COMPLETE_SIZE as u32;

/// Size of magic and version, the same in every format.
const PREAMBLE_LEN: usize = 12;
/// Size of the header.
const HEADER_LEN: usize = 24;
/// Size of an entry before its kind: length and checksum.
const FRAME_LEN: usize = 8;

/// Maximum size of an entry's kind and body.
const ENTRY_LEN_MAX: usize = 8 * 1024;
const _: () = assert!(COMPLETE_SIZE < ENTRY_LEN_MAX);

/// Kind of an entry that holds a complete record.
const KIND_RECORD: u8 = 1;
/// Kind of an entry that holds a [`Note`].
const KIND_NOTE: u8 = 2;

/// Entry of a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// Record, printed or not.
    Record(CompleteRecord),
    /// Any other input of the worker.
    Note(Note),
}

/// Input of the worker other than records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Note {
    /// Tracing is live.
    Start {
        /// Name of the recording host.
        host: Arc<str>,
        /// Time of the start line.
        time: Timestamp,
        /// Same time, `CLOCK_BOOTTIME` nanoseconds.
        boot_ns: u64,
        /// Content of the start line.
        start: Start,
    },
    /// Distance from `CLOCK_BOOTTIME` to wall time, for the records that follow.
    Clock {
        /// Wall time minus `CLOCK_BOOTTIME`.
        boot_to_wall: SignedDuration,
    },
    /// Owner of the caller, for the records that follow.
    Owner(Owner),
    /// Answer of the host to a question about the next record.
    Told(RecordedAnswer),
    /// There was no room to wait for the cause of the next record.
    NoTime,
    /// Port pressure of a destination, or its relief.
    PortPressure {
        /// Time of the line.
        time: Timestamp,
        /// Level of the line, in percent; 0 for relief.
        level: u8,
        /// Port usage that the scan found.
        found: PortUse,
    },
    /// Totals at this point.
    Snapshot {
        /// Time of the lines.
        time: Timestamp,
        /// Counters and purpose.
        snapshot: Snapshot,
    },
}

impl Entry {
    fn is_start(&self) -> bool {
        matches!(self, Self::Note(Note::Start { .. }))
    }

    fn is_stop(&self) -> bool {
        matches!(self, Self::Note(Note::Snapshot { snapshot, .. })
            if matches!(snapshot.purpose, Purpose::Stop(_)))
    }
}

/// Maximum bytes of a start in JSON: with the host's name and the rest of the line it stays within
/// the limit of a line.
const START_JSON_MAX: usize = LINE_LEN_MAX - HOST_JSON_MAX - 256;

impl Note {
    /// Returns true if the lines for this note stay within the limit. Notes of a recorder always
    /// do; a manipulated recording may exceed it.
    fn fits(&self) -> bool {
        let is_short = |text: &str| sanitize::fits(text, PATH_JSON_MAX);
        match self {
            Self::Start { host, start, .. } => {
                let json = serde_json::to_string(start).unwrap_or_default();
                sanitize::fits(host, HOST_JSON_MAX)
                    && sanitize::written_len(&json) <= START_JSON_MAX
            }
            // A cause limits itself, whatever it is based on.
            Self::Clock { .. } | Self::Told(_) | Self::NoTime | Self::PortPressure { .. } => true,
            Self::Owner(owner) => {
                let paths = [&owner.exe, &owner.cgroup].into_iter().flatten();
                let names = owner.container.iter().flat_map(names);
                paths.into_iter().all(|path| is_short(path))
                    && names
                        .into_iter()
                        .all(|name| sanitize::fits(name, NAME_JSON_MAX))
            }
            Self::Snapshot { snapshot, .. } => snapshot.fits(),
        }
    }
}

fn names(container: &Container) -> impl Iterator<Item = &Arc<str>> {
    let Container {
        id,
        name,
        runtime: _,
        pod,
        namespace,
    } = container;
    [id, name, pod, namespace].into_iter().flatten()
}

/// Computes the checksum of an entry.
fn checksum(length: [u8; 4], kind_and_body: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    for part in kind_and_body {
        hasher.update(part);
    }
    hasher.finalize()
}

#[cfg(test)]
pub(crate) mod tests;
