use std::{
    fs::File,
    io,
    io::{ErrorKind, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};

use super::{
    BYTE_ORDER, ENTRY_LEN_MAX, HEADER_LEN, KIND_NOTE, KIND_RECORD, MAGIC, Note, RECORD_SIZE_FIELD,
    Snapshot, VERSION, checksum,
};
use crate::{
    host::RecordedAnswer,
    output::event::{Owner, PortUse, Start},
    record::WireRecord,
};

/// Only its owner may read whom this host talks to.
const MODE: u32 = 0o600;

/// Bytes kept before they are written without being asked to.
const BUFFER_LEN: usize = 64 * 1024;

/// Why there is no recording.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// There is something of that name, be it a link that leads nowhere.
    #[error("cannot record to {0}: it exists, and a recording replaces nothing; name a new file")]
    Exists(PathBuf),
    /// Anything else.
    #[error("cannot record to {0}")]
    Failed(PathBuf, #[source] io::Error),
}

/// Writes a recording. It never fails its caller: when the file takes no more it
/// says so on stderr, and from then on counts what it cannot keep.
pub struct Recorder {
    out: Box<dyn Write + Send>,
    /// What `out` is, for messages.
    name: String,
    buffer: Vec<u8>,
    /// Records in the buffer.
    buffered: u64,
    /// What the recording last said, not to say it again.
    clock: Option<SignedDuration>,
    owner: Option<Owner>,
    /// Set when writing failed: records that are not surely in the file.
    unrecorded: Option<u64>,
}

impl Recorder {
    /// Records to a new file, which only its owner can read.
    ///
    /// # Errors
    /// When there is such a file already, or none can be made.
    pub fn create(path: &Path) -> Result<Self, CreateError> {
        let failed = |error: io::Error| {
            if error.kind() == ErrorKind::AlreadyExists {
                CreateError::Exists(path.to_owned())
            } else {
                CreateError::Failed(path.to_owned(), error)
            }
        };
        // O_EXCL: never through a symlink, never into what another has made.
        let file = File::options()
            .write(true)
            .create_new(true)
            .mode(MODE)
            .open(path)
            .map_err(failed)?;
        Self::new(Box::new(file), path.display().to_string()).map_err(failed)
    }

    /// Records to `out`, called `name` in messages.
    ///
    /// # Errors
    /// When not even the header can be written.
    pub fn new(mut out: Box<dyn Write + Send>, name: String) -> io::Result<Self> {
        out.write_all(&header())?;
        Ok(Self {
            out,
            name,
            buffer: Vec::with_capacity(BUFFER_LEN + ENTRY_LEN_MAX),
            buffered: 0,
            clock: None,
            owner: None,
            unrecorded: None,
        })
    }

    /// Tracing is live, at this moment by the wall clock and by `CLOCK_BOOTTIME`.
    pub fn start(&mut self, host: &Arc<str>, (time, boot_ns): (Timestamp, u64), start: &Start) {
        self.note(&Note::Start {
            host: Arc::clone(host),
            time,
            boot_ns,
            start: start.clone(),
        });
    }

    /// The distance to wall time that the next records are told with.
    pub fn clock(&mut self, distance: Option<SignedDuration>) {
        if let Some(boot_to_wall) = distance
            && self.clock != distance
        {
            self.clock = distance;
            self.note(&Note::Clock { boot_to_wall });
        }
    }

    /// An answer about the next record.
    pub fn told(&mut self, told: RecordedAnswer) {
        self.note(&Note::Told(told));
    }

    /// What leads to a line of this level.
    pub fn port_pressure(&mut self, time: Timestamp, level: u8, found: PortUse) {
        self.note(&Note::PortPressure { time, level, found });
    }

    /// A record, and what was found out about its caller if it names one.
    pub fn record(&mut self, record: &WireRecord, owner: Option<&Owner>) {
        if let Some(unrecorded) = &mut self.unrecorded {
            *unrecorded += 1;
            return;
        }
        if let Some(owner) = owner
            && self.owner.as_ref() != Some(owner)
        {
            self.owner = Some(owner.clone());
            self.note(&Note::Owner(owner.clone()));
        }
        self.buffered += 1;
        self.entry(KIND_RECORD, record);
    }

    /// The totals; what precedes them is in the file when this returns.
    pub fn snapshot(&mut self, time: Timestamp, snapshot: &Snapshot) {
        self.note(&Note::Snapshot {
            time,
            snapshot: snapshot.clone(),
        });
        self.flush();
    }

    /// Hands everything noted so far to the file.
    pub fn flush(&mut self) {
        if let Err(error) = self.out.write_all(&self.buffer) {
            return self.fail(&error);
        }
        self.buffer.clear();
        self.buffered = 0;
    }

    /// Records that could not be kept.
    #[must_use]
    pub fn unrecorded(&self) -> u64 {
        self.unrecorded.unwrap_or(0)
    }

    fn note(&mut self, note: &Note) {
        match serde_json::to_vec(note) {
            Ok(json) => self.entry(KIND_NOTE, &json),
            Err(error) => self.fail(&error.into()),
        }
    }

    fn entry(&mut self, kind: u8, body: &[u8]) {
        if self.unrecorded.is_some() {
            return;
        }
        let Some(length) = length(body) else {
            return self.fail(&io::Error::other("an entry is too long"));
        };
        let checksum = checksum(length, &[&[kind], body]);
        self.buffer.extend(length);
        self.buffer.extend(checksum.to_le_bytes());
        self.buffer.push(kind);
        self.buffer.extend(body);
        if self.buffer.len() >= BUFFER_LEN {
            self.flush();
        }
    }

    fn fail(&mut self, error: &io::Error) {
        // Once: what cannot be kept after that is counted.
        if self.unrecorded.is_some() {
            return;
        }
        log::error!(
            "cannot record to {}: {error}; the recording ends here, the lines go on",
            self.name
        );
        self.unrecorded = Some(self.buffered);
        self.buffer = Vec::new();
    }
}

/// A worker whose output fails leaves what it was handed until then.
impl Drop for Recorder {
    fn drop(&mut self) {
        self.flush();
    }
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// The length field of an entry with this body, unless it is too long.
fn length(body: &[u8]) -> Option<[u8; 4]> {
    let length = 1 + body.len();
    (length <= ENTRY_LEN_MAX)
        .then(|| u32::try_from(length).ok())
        .flatten()
        .map(u32::to_le_bytes)
}

fn header() -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER_LEN);
    header.extend(MAGIC);
    header.extend(VERSION.to_le_bytes());
    header.extend(RECORD_SIZE_FIELD.to_le_bytes());
    header.extend(BYTE_ORDER.to_ne_bytes());
    header.extend(crc32fast::hash(&header).to_le_bytes());
    header
}
