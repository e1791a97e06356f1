use std::{
    fs::File,
    io::{self, ErrorKind, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};

use super::{
    BYTE_ORDER, COMPLETE_SIZE_FIELD, ENTRY_LEN_MAX, HEADER_LEN, KIND_NOTE, KIND_RECORD, MAGIC,
    Note, Snapshot, VERSION, checksum,
};
use crate::{
    host::RecordedAnswer,
    output::event::{Owner, PortUse, Start},
    record::CompleteRecord,
};

/// Mode of the file: only its owner may read this host's destinations.
const MODE: u32 = 0o600;

/// Number of bytes after which the buffer is written.
const BUFFER_LEN: usize = 64 * 1024;

/// Error of creating a recording.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The path exists, possibly as a dangling link.
    #[error("cannot record to {0}: it exists, and a recording replaces nothing; name a new file")]
    Exists(PathBuf),
    /// The file cannot be created or written.
    #[error("cannot record to {0}")]
    Failed(PathBuf, #[source] io::Error),
}

/// Writes a recording and never fails its caller. After an error it logs to stderr and counts the
/// records that are lost.
pub struct Recorder {
    out: Box<dyn Write + Send>,
    /// Name of `out` for messages.
    name: String,
    buffer: Vec<u8>,
    /// Number of records in the buffer.
    buffered: u64,
    /// Distance and owner last written, to write only changes.
    clock: Option<SignedDuration>,
    owner: Option<Owner>,
    /// Number of lost records, once writing has failed.
    unrecorded: Option<u64>,
}

impl Recorder {
    /// Creates a new file that only its owner can read.
    ///
    /// # Errors
    /// Fails when the file exists or cannot be created.
    pub fn create(path: &Path) -> Result<Self, CreateError> {
        let failed = |error: io::Error| {
            if error.kind() == ErrorKind::AlreadyExists {
                CreateError::Exists(path.to_owned())
            } else {
                CreateError::Failed(path.to_owned(), error)
            }
        };
        // O_EXCL: never follows a symlink or writes into an existing file.
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
    /// Fails when the header cannot be written.
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

    /// Records the start, with its wall time and `CLOCK_BOOTTIME`.
    pub fn start(&mut self, host: &Arc<str>, (time, boot_ns): (Timestamp, u64), start: &Start) {
        self.note(&Note::Start {
            host: Arc::clone(host),
            time,
            boot_ns,
            start: start.clone(),
        });
    }

    /// Records the distance to wall time for the next records, if it changed.
    pub fn clock(&mut self, distance: Option<SignedDuration>) {
        if let Some(boot_to_wall) = distance
            && self.clock != distance
        {
            self.clock = distance;
            self.note(&Note::Clock { boot_to_wall });
        }
    }

    /// Records an answer about the next record.
    pub fn answer(&mut self, answer: RecordedAnswer) {
        self.note(&Note::Told(answer));
    }

    /// Records that there was no room to wait for the cause of the next record.
    pub fn no_time(&mut self) {
        self.note(&Note::NoTime);
    }

    /// Records the port usage behind a line of this level.
    pub fn port_pressure(&mut self, time: Timestamp, level: u8, found: PortUse) {
        self.note(&Note::PortPressure { time, level, found });
    }

    /// Records a record, and the owner of its caller if that changed.
    pub fn record(&mut self, record: &CompleteRecord, owner: Option<&Owner>) {
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

    /// Records counters; returns after everything so far is written to the file.
    pub fn snapshot(&mut self, time: Timestamp, snapshot: &Snapshot) {
        self.note(&Note::Snapshot {
            time,
            snapshot: snapshot.clone(),
        });
        self.flush();
    }

    /// Writes the buffer to the file.
    pub fn flush(&mut self) {
        if let Err(error) = self.out.write_all(&self.buffer) {
            return self.fail(&error);
        }
        self.buffer.clear();
        self.buffered = 0;
    }

    /// Returns the number of records that could not be written.
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
        // Logged once; later losses are counted.
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

/// Writes the rest when the worker ends, even after its output has failed.
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

/// Returns the length field for an entry with this body; `None` if it is too long.
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
    header.extend(COMPLETE_SIZE_FIELD.to_le_bytes());
    header.extend(BYTE_ORDER.to_ne_bytes());
    header.extend(crc32fast::hash(&header).to_le_bytes());
    header
}
