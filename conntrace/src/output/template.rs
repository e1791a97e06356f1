//! Lines of equal failures: the text that they share, and holes for their numbers.
//!
//! The holes are found in two renderings of the same facts with different numbers, so there is no
//! list of fields beside the one that is serialised.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::{
    event::{AttemptId, OwnNumbers},
    message,
};

/// Number of an attempt, as it stands in a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hole {
    Time,
    Started,
    /// Duration in microseconds.
    ElapsedUs,
    /// Duration in words, as in `message`.
    Elapsed,
    AttemptId,
    Pid,
    Tid,
    LocalPort,
    Suppressed,
}

impl Hole {
    const ALL: [Self; 9] = [
        Self::Time,
        Self::Started,
        Self::ElapsedUs,
        Self::Elapsed,
        Self::AttemptId,
        Self::Pid,
        Self::Tid,
        Self::LocalPort,
        Self::Suppressed,
    ];

    /// Appends the text that stands in this hole.
    fn write(self, numbers: &OwnNumbers, writer: &mut HoleWriter, out: &mut Vec<u8>) {
        let mut digits = itoa::Buffer::new();
        writer.text.clear();
        let text = match self {
            Self::Time => return writer.time.write(numbers.time, out),
            Self::Started => return writer.started.write(numbers.started, out),
            Self::AttemptId => return numbers.id.write(out),
            Self::Elapsed => {
                message::elapsed(&mut writer.text, Some(numbers.elapsed_us));
                &writer.text
            }
            Self::ElapsedUs => digits.format(numbers.elapsed_us),
            Self::Pid => digits.format(numbers.pid),
            Self::Tid => digits.format(numbers.tid),
            Self::LocalPort => digits.format(numbers.local_port),
            Self::Suppressed => digits.format(numbers.suppressed),
        };
        out.extend_from_slice(text.as_bytes());
    }
}

/// Text before a hole.
#[derive(Debug)]
struct Piece {
    text: Box<[u8]>,
    hole: Hole,
}

/// Line with holes for the numbers of one attempt.
#[derive(Debug)]
pub(super) struct Template {
    pieces: Box<[Piece]>,
    /// Text after the last hole.
    rest: Box<[u8]>,
}

impl Template {
    /// Finds the template of the lines that `render` writes. `None` if two of them differ by more
    /// than their numbers.
    pub(super) fn of(mut render: impl FnMut(&OwnNumbers) -> Option<Vec<u8>>) -> Option<Self> {
        let [first, second] = sample_numbers()?;
        let text = |hole: Hole, numbers| {
            let mut text = Vec::new();
            hole.write(numbers, &mut HoleWriter::default(), &mut text);
            text
        };
        let samples = Hole::ALL.map(|hole| (hole, text(hole, &first), text(hole, &second)));
        let (line, other_line) = (render(&first)?, render(&second)?);
        let (mut line, mut other_line) = (line.as_slice(), other_line.as_slice());
        let (mut pieces, mut shared) = (Vec::new(), Vec::new());
        while let Some((byte, rest)) = line.split_first() {
            let (other_byte, other_rest) = other_line.split_first()?;
            if byte == other_byte {
                shared.push(*byte);
                (line, other_line) = (rest, other_rest);
                continue;
            }
            let (hole, rest, other_rest) = samples.iter().find_map(|(hole, first, second)| {
                let (rest, other_rest) = (
                    line.strip_prefix(&**first)?,
                    other_line.strip_prefix(&**second)?,
                );
                Some((*hole, rest, other_rest))
            })?;
            let text = std::mem::take(&mut shared).into();
            pieces.push(Piece { text, hole });
            (line, other_line) = (rest, other_rest);
        }
        other_line.is_empty().then(|| Self {
            pieces: pieces.into(),
            rest: shared.into(),
        })
    }

    /// Appends the line of an attempt with these numbers.
    pub(super) fn write(&self, numbers: &OwnNumbers, writer: &mut HoleWriter, out: &mut Vec<u8>) {
        for piece in &self.pieces {
            out.extend_from_slice(&piece.text);
            piece.hole.write(numbers, writer, out);
        }
        out.extend_from_slice(&self.rest);
    }
}

/// Returns two sets of numbers. In each hole their texts have the same length and begin
/// differently, and no text begins with another one of its set.
fn sample_numbers() -> Option<[OwnNumbers; 2]> {
    // In 1973 and 1974, and in 2001 and 2002.
    let time = |second| Timestamp::from_second(second).ok();
    Some([
        OwnNumbers {
            time: time(100_000_000)?,
            started: time(130_000_000)?,
            elapsed_us: 177_777_777_777,
            id: AttemptId {
                since_ns: 0x1aaa_aaaa_aaaa_aaaa,
                serial: 0x1bbb_bbbb,
            },
            pid: 1_111_111_111,
            tid: 1_333_333_333,
            local_port: 15_555,
            suppressed: 1_000_000_000_000_000_000,
        },
        OwnNumbers {
            time: time(1_000_000_000)?,
            started: time(1_030_000_000)?,
            elapsed_us: 288_888_888_888,
            id: AttemptId {
                since_ns: 0x2ccc_cccc_cccc_cccc,
                serial: 0x2ddd_dddd,
            },
            pid: 2_222_222_222,
            tid: 2_444_444_444,
            local_port: 26_666,
            suppressed: 2_000_000_000_000_000_000,
        },
    ])
}

/// Texts of the last seconds, and a buffer.
#[derive(Debug, Default)]
pub(super) struct HoleWriter {
    time: WrittenSecond,
    started: WrittenSecond,
    /// Buffer for the current hole.
    text: String,
}

/// Text of a second.
#[derive(Debug, Default)]
struct WrittenSecond {
    /// Second since the epoch; `None` if there is no text for it.
    second: Option<i64>,
    /// Text before the nanoseconds, such as `2026-11-22T08:30:00.`.
    text: String,
}

impl WrittenSecond {
    /// Appends a time like [`Time`](super::event::Time).
    fn write(&mut self, time: Timestamp, out: &mut Vec<u8>) {
        let second = time.as_second();
        // Negative before the epoch: such a time counts down from its second.
        let nanoseconds = u32::try_from(time.subsec_nanosecond());
        if let (true, Ok(nanoseconds)) = (self.second == Some(second), nanoseconds) {
            out.extend_from_slice(self.text.as_bytes());
            // Ten digits, of which the first is not part of the time.
            let mut digits = itoa::Buffer::new();
            let digits = digits.format(1_000_000_000 + nanoseconds);
            out.extend_from_slice(digits.as_bytes().get(1..).unwrap_or_default());
            out.push(b'Z');
            return;
        }
        self.text.clear();
        // Writing to a `String` cannot fail.
        let _ = write!(self.text, "{time:.9}");
        out.extend_from_slice(self.text.as_bytes());
        self.second = (time >= Timestamp::UNIX_EPOCH).then_some(second);
        let before_nanoseconds = self.text.find('.').map_or(0, |at| at + 1);
        self.text.truncate(before_nanoseconds);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_time_is_written_as_without_a_memory(
            times in prop::collection::vec((-2i64..3, -1_000_000_000i32..1_000_000_000), 1..20),
            from in prop::sample::select(&[0, 1_795_681_800, -70_000_000_000][..]),
        ) {
            let mut memory = WrittenSecond::default();
            for (second, nanosecond) in times {
                let time = Timestamp::new(from + second, nanosecond).unwrap();
                let mut text = Vec::new();
                memory.write(time, &mut text);
                prop_assert_eq!(text, format!("{time:.9}").into_bytes());
            }
        }
    }
}
