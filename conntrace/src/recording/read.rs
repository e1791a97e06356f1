use std::io::{self, Read};

use super::{
    BYTE_ORDER, COMPLETE_SIZE_FIELD, ENTRY_LEN_MAX, Entry, FRAME_LEN, HEADER_LEN, KIND_NOTE,
    KIND_RECORD, MAGIC, Note, PREAMBLE_LEN, VERSION, checksum,
};
use crate::record::sanitize::visible;

/// Error of reading a recording.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be read.
    #[error("cannot read it")]
    Io(#[from] io::Error),
    /// The file is empty.
    #[error("it is empty: `conntrace run --record FILE` makes recordings")]
    Empty,
    /// The file is not a recording.
    #[error("it is not a recording: `conntrace run --record FILE` makes one")]
    Foreign,
    /// The recording has another version of the format.
    #[error(
        "its format is version {0}, and this conntrace knows version {VERSION}: \
         replay it with the version of conntrace that made it"
    )]
    Version(u32),
    /// The records have another architecture's byte order or another version's size.
    #[error(
        "its records have another {0}: replay it with the version of conntrace that made it, \
         on the same architecture"
    )]
    Records(&'static str),
    /// The recording is damaged; entries before the offset are valid.
    #[error("it is damaged at byte {offset}: {damage}{}", remark_on_lines_before(*offset))]
    Damaged {
        /// Offset of the damaged entry.
        offset: u64,
        /// Kind of damage.
        damage: Damage,
    },
}

/// Kind of damage in a recording.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// The file ends within an entry or the header.
    #[error("the file ends in the middle of what begins there")]
    Truncated,
    /// The file ends without a stop.
    #[error(
        "the file ends without a stop; conntrace was killed, its output was closed, or the rest is missing"
    )]
    NoStop,
    /// Checksum mismatch.
    #[error("the checksum does not fit")]
    Checksum,
    /// The length of an entry is out of range.
    #[error("an entry has an invalid length of {0} bytes")]
    Length(u32),
    /// The kind of an entry is unknown, or does not match the length.
    #[error("an entry has an unknown kind {0}, or a length that does not match it")]
    Kind(u8),
    /// The note is not valid JSON for a note.
    #[error("a note is invalid ({0})")]
    Note(String),
    /// The first entry is not a start, or a later one is.
    #[error("a start is missing, or in the wrong place")]
    Start,
    /// Data follows the stop.
    #[error("something follows the stop")]
    AfterStop,
}

/// Returns the remark about lines before the damage; a header has none.
fn remark_on_lines_before(offset: u64) -> &'static str {
    if offset > HEADER_LEN as u64 {
        "; the lines before it were written"
    } else {
        ""
    }
}

/// Position of the reader in a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReadState {
    Start,
    Middle,
    End,
}

/// Reads a recording entry by entry. Any input yields the valid entries, then the end or the damage
/// with its offset.
#[derive(Debug)]
pub struct RecordingReader<R> {
    input: R,
    /// Offset of the next entry.
    offset: u64,
    state: ReadState,
}

impl<R: Read> RecordingReader<R> {
    /// Reads the header. `input` should be buffered.
    ///
    /// # Errors
    /// Fails when this is not a recording, or one that cannot be replayed here.
    pub fn new(mut input: R) -> Result<Self, ReadError> {
        let mut header = [0; HEADER_LEN];
        let read = fill(&mut input, &mut header)?;
        check_header(header.get(..read).unwrap_or_default())?;
        Ok(Self {
            input,
            offset: HEADER_LEN as u64,
            state: ReadState::Start,
        })
    }

    /// Reads the next entry; `None` after the stop. After an error, no more entries can be read.
    ///
    /// # Errors
    /// Fails when the file cannot be read, or is damaged here.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, ReadError> {
        let mut frame = [0; FRAME_LEN];
        let read = fill(&mut self.input, &mut frame)?;
        match (read, self.state) {
            (0, ReadState::End) => return Ok(None),
            (0, ReadState::Start | ReadState::Middle) => return Err(self.damaged(Damage::NoStop)),
            (_, ReadState::End) => return Err(self.damaged(Damage::AfterStop)),
            (FRAME_LEN, ReadState::Start | ReadState::Middle) => {}
            (_, ReadState::Start | ReadState::Middle) => {
                return Err(self.damaged(Damage::Truncated));
            }
        }
        let [l0, l1, l2, l3, c0, c1, c2, c3] = frame;
        let length = [l0, l1, l2, l3];
        let body = self.body(length)?;
        if checksum(length, &[&body]) != u32::from_le_bytes([c0, c1, c2, c3]) {
            return Err(self.damaged(Damage::Checksum));
        }
        let entry = parse(&body).map_err(|damage| self.damaged(damage))?;
        if entry.is_start() != (self.state == ReadState::Start) {
            return Err(self.damaged(Damage::Start));
        }
        self.state = if entry.is_stop() {
            ReadState::End
        } else {
            ReadState::Middle
        };
        self.offset += (FRAME_LEN + body.len()) as u64;
        Ok(Some(entry))
    }

    /// Reads the kind and body of an entry of this length.
    fn body(&mut self, length: [u8; 4]) -> Result<Vec<u8>, ReadError> {
        let length = u32::from_le_bytes(length);
        let len = length as usize;
        if !(1..=ENTRY_LEN_MAX).contains(&len) {
            return Err(self.damaged(Damage::Length(length)));
        }
        let mut body = vec![0; len];
        if fill(&mut self.input, &mut body)? < len {
            return Err(self.damaged(Damage::Truncated));
        }
        Ok(body)
    }

    fn damaged(&self, damage: Damage) -> ReadError {
        ReadError::Damaged {
            offset: self.offset,
            damage,
        }
    }
}

/// Checks a header, which can be short. The fields that decide how to read the rest are checked
/// first.
fn check_header(header: &[u8]) -> Result<(), ReadError> {
    let damaged = |damage| ReadError::Damaged { offset: 0, damage };
    if header.is_empty() {
        return Err(ReadError::Empty);
    }
    let magic = header.get(..MAGIC.len()).unwrap_or(header);
    if !MAGIC.starts_with(magic) {
        return Err(ReadError::Foreign);
    }
    let field = |at: usize| {
        let rest = header.get(at..)?;
        rest.first_chunk().copied()
    };
    let truncated = || damaged(Damage::Truncated);
    let version = u32::from_le_bytes(field(MAGIC.len()).ok_or_else(truncated)?);
    if version > VERSION {
        return Err(ReadError::Version(version));
    }
    let record_size = u32::from_le_bytes(field(PREAMBLE_LEN).ok_or_else(truncated)?);
    let byte_order = u32::from_ne_bytes(field(PREAMBLE_LEN + 4).ok_or_else(truncated)?);
    let sum = u32::from_le_bytes(field(PREAMBLE_LEN + 8).ok_or_else(truncated)?);
    let summed = header.get(..HEADER_LEN - 4).unwrap_or_default();
    if crc32fast::hash(summed) != sum {
        return Err(damaged(Damage::Checksum));
    }
    if version < VERSION {
        return Err(ReadError::Version(version));
    }
    if byte_order != BYTE_ORDER {
        return Err(ReadError::Records("byte order"));
    }
    if record_size != COMPLETE_SIZE_FIELD {
        return Err(ReadError::Records("size"));
    }
    Ok(())
}

/// Parses an entry's kind and body.
fn parse(kind_and_body: &[u8]) -> Result<Entry, Damage> {
    let (&kind, body) = kind_and_body.split_first().ok_or(Damage::Length(0))?;
    match kind {
        KIND_RECORD => body
            .try_into()
            .map(Entry::Record)
            .map_err(|_| Damage::Kind(kind)),
        KIND_NOTE => note(body).map(Entry::Note).map_err(Damage::Note),
        _ => Err(Damage::Kind(kind)),
    }
}

fn note(json: &[u8]) -> Result<Note, String> {
    // The error may quote bytes of the file.
    let note: Note = serde_json::from_slice(json).map_err(|error| visible(&error.to_string()))?;
    if note.fits() {
        Ok(note)
    } else {
        Err("a text exceeds the limit of a line".to_owned())
    }
}

/// Reads until the buffer is full or the file ends; returns the number of bytes.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match input.read(rest) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
