//! A recording: what the worker was handed and what it was told, in that order,
//! so that a replay makes the same lines of it on any machine.
//!
//! ```text
//! header   MAGIC, then four u32: VERSION, RECORD_SIZE, BYTE_ORDER, checksum of what precedes
//! entry    u32 length of kind and body, u32 checksum of length, kind and body,
//!          u8 kind, body: a wire record as it came, or a Note as JSON
//! ```
//!
//! Numbers are little-endian, but for those in a wire record and `BYTE_ORDER`,
//! which are the recording host's. The first entry is the start, the last the
//! stop; a recording without its stop was cut off. What a record needs stands
//! before it: the distance to wall time and what is known of the caller, each
//! only where it has changed, and what was asked about the host.

mod read;
mod snapshot;
mod write;

use std::sync::Arc;

use conntrace_common::record::RECORD_SIZE;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

pub use read::{Damage, ReadError, RecordingReader};
pub use write::{CreateError, Recorder};

use crate::{
    host::RecordedAnswer,
    output::event::{
        Container, HOST_JSON_MAX, LINE_LEN_MAX, NAME_JSON_MAX, Owner, PATH_JSON_MAX, PortUse, Start,
    },
    record::{WireRecord, sanitize},
};
pub use snapshot::{Purpose, Snapshot};

/// How a recording begins. The last byte keeps it from being taken for text.
const MAGIC: [u8; 8] = *b"conntrc\x1a";

/// Version of the format: goes up with every change, for the reader takes nothing
/// it does not know. Magic and version never move.
pub const VERSION: u32 = 5;

/// Reads as itself where a record's numbers can be read as they are.
const BYTE_ORDER: u32 = 0x0102_0304;

/// The size of a record, as the header has it.
#[expect(clippy::cast_possible_truncation, reason = "it is below ENTRY_LEN_MAX")]
const RECORD_SIZE_FIELD: u32 = RECORD_SIZE as u32;

/// Bytes of magic and version, the same in every format.
const PREAMBLE_LEN: usize = 12;
/// Bytes of the header.
const HEADER_LEN: usize = 24;
/// Bytes of an entry before its kind: length and checksum.
const FRAME_LEN: usize = 8;

/// Most bytes of an entry's kind and body.
const ENTRY_LEN_MAX: usize = 8 * 1024;
const _: () = assert!(RECORD_SIZE < ENTRY_LEN_MAX);

/// Kind of an entry: a wire record.
const KIND_RECORD: u8 = 1;
/// Kind of an entry: a [`Note`].
const KIND_NOTE: u8 = 2;

/// One step of a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A wire record, printed or not.
    Record(WireRecord),
    /// Anything else.
    Note(Note),
}

/// What the worker was told besides the records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Note {
    /// Tracing is live.
    Start {
        /// The host's name.
        host: Arc<str>,
        /// The line's time.
        time: Timestamp,
        /// The same moment, `CLOCK_BOOTTIME` nanoseconds.
        boot_ns: u64,
        /// What the line says.
        start: Start,
    },
    /// From `CLOCK_BOOTTIME` to wall time, for the records that follow.
    Clock {
        /// The distance.
        boot_to_wall: SignedDuration,
    },
    /// What is known of the caller, for the records that follow.
    Owner(Owner),
    /// What the host answered to a question about the next record.
    Told(RecordedAnswer),
    /// A destination uses up the local ports, or does so no more.
    PortPressure {
        /// The line's time.
        time: Timestamp,
        /// Its level.
        level: u8,
        /// What a look at the sockets found.
        found: PortUse,
    },
    /// The totals at this point.
    Snapshot {
        /// The lines' time.
        time: Timestamp,
        /// What was counted.
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

/// Most bytes of a start in JSON: with the host's name and the rest of its line
/// it is no longer than a line may be.
const START_JSON_MAX: usize = LINE_LEN_MAX - HOST_JSON_MAX - 256;

impl Note {
    /// Whether the lines made of it are no longer than a line may be: what a
    /// recorder wrote always fits, what someone else wrote may not.
    fn fits(&self) -> bool {
        let is_short = |text: &str| sanitize::fits(text, PATH_JSON_MAX);
        match self {
            Self::Start { host, start, .. } => {
                let json = serde_json::to_string(start).unwrap_or_default();
                sanitize::fits(host, HOST_JSON_MAX)
                    && sanitize::written_len(&json) <= START_JSON_MAX
            }
            // A cause keeps to its room whatever it is made of.
            Self::Clock { .. } | Self::Told(_) | Self::PortPressure { .. } => true,
            Self::Owner(owner) => {
                let paths = [&owner.exe, &owner.cgroup].into_iter().flatten();
                let names = owner.container.iter().flat_map(names);
                paths.into_iter().all(|path| is_short(path))
                    && names
                        .into_iter()
                        .all(|name| sanitize::fits(name, NAME_JSON_MAX))
            }
            Self::Snapshot { snapshot, .. } => match &snapshot.purpose {
                Purpose::Stop(reason) => is_short(reason),
                Purpose::Summary | Purpose::Loss => true,
            },
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

/// The checksum of an entry.
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
