//! Output of `replay` for damaged recordings: every byte changed, and every length cut. Nothing
//! here needs root.

use std::{collections::HashMap, fs, process::ExitCode};

use conntrace_tests::{Dir, conntrace, plain_test, run, sample, stderr, stdout};

/// Beginning of each message about a recording.
const CANNOT: &str = "conntrace: cannot replay recording: ";
/// Size of the header in bytes; a damaged header leaves no line.
const HEADER_LEN: usize = 24;
/// Position of the format version in the header.
const VERSION_AT: std::ops::Range<usize> = 8..12;

pub(crate) fn main() -> ExitCode {
    run(vec![
        plain_test("every_byte_changed", every_byte_changed),
        plain_test("every_length", every_length),
        plain_test("an_entry_twice_or_missing", an_entry_twice_or_missing),
    ])
}

/// Temporary folder in which recordings are replayed.
struct Replays(Dir);

impl Replays {
    fn new(name: &str) -> Self {
        Self(Dir::new(&format!("damage-{name}")))
    }

    /// Replays these bytes with `replay --all`; returns exit status, stdout and stderr.
    fn of(&self, bytes: &[u8]) -> (Option<i32>, String, String) {
        fs::write(self.0.file("recording"), bytes).unwrap();
        let mut command = conntrace();
        command.current_dir(&self.0.0);
        let output = command.args(["replay", "recording", "--all"]).output();
        let output = output.unwrap();
        let text = [stdout(&output), stderr(&output)].map(str::to_owned);
        let [written, said] = text;
        (output.status.code(), written, said)
    }

    /// Replays a good recording; returns its lines.
    fn lines(&self, good: &[u8]) -> String {
        let (status, written, said) = self.of(good);
        assert_eq!((status, said.as_str()), (Some(0), ""));
        written
    }

    /// Replays a bad recording, which fails with one line on stderr. Returns stdout and the reason.
    fn failure(&self, bytes: &[u8]) -> (String, String) {
        let (status, written, said) = self.of(bytes);
        assert_eq!(status, Some(1), "{said}");
        let why = said.strip_prefix(CANNOT).unwrap().strip_suffix('\n');
        let why = why.unwrap().to_owned();
        assert!(!why.contains('\n'), "{said}");
        (written, why)
    }
}

/// Reads the byte offset from a message about damage.
fn offset(why: &str) -> Option<usize> {
    let (_, after) = why.split_once("it is damaged at byte ")?;
    after.split(':').next().unwrap().parse().ok()
}

/// Returns the offset of every entry, and of the end.
fn places(recording: &[u8]) -> Vec<usize> {
    let mut places = vec![HEADER_LEN];
    while let Some(length) = recording[places[places.len() - 1]..].first_chunk() {
        let length = u32::from_le_bytes(*length) as usize;
        places.push(places[places.len() - 1] + 8 + length);
    }
    places
}

/// The message names the damaged entry, and all lines before it are printed.
fn every_byte_changed() {
    let replays = Replays::new("bytes");
    let good = sample();
    let lines = replays.lines(&good);
    let places = places(&good);
    let mut before = HashMap::new();
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        let (written, why) = replays.failure(&bytes);
        if at < HEADER_LEN {
            let told = match at {
                0..8 => "it is not a recording: ",
                // The version is checked first, because a later one may have another header.
                _ if VERSION_AT.contains(&at) => "its format is version ",
                _ => "it is damaged at byte 0: ",
            };
            let lower = "it is damaged at byte 0: the checksum does not fit";
            assert!(why.starts_with(told) || why == lower, "{at}: {why}");
            assert_eq!(written, "", "{at}");
            continue;
        }
        let entry = places.iter().rev().find(|&&place| place <= at).copied();
        assert_eq!(offset(&why), entry, "{at}: {why}");
        let entry = entry.unwrap();
        let whole = before
            .entry(entry)
            .or_insert_with(|| replays.failure(&good[..entry]).0);
        assert_eq!(&written, whole, "{at}");
        assert!(lines.starts_with(&written), "{at}");
    }
    assert_eq!(before.len(), places.len() - 1, "every entry was damaged");
}

/// Lines that precede the cut are written, each of them whole.
fn every_length() {
    let replays = Replays::new("lengths");
    let good = sample();
    let lines = replays.lines(&good);
    let places = places(&good);
    let mut counts = Vec::new();
    for len in 0..good.len() {
        let (written, why) = replays.failure(&good[..len]);
        match len {
            0 => assert!(why.starts_with("it is empty"), "{why}"),
            _ if len < HEADER_LEN => assert_eq!(offset(&why), Some(0), "{len}: {why}"),
            _ => {
                let entry = places.iter().rev().find(|&&place| place <= len);
                assert_eq!(offset(&why), entry.copied(), "{len}: {why}");
                let at_its_end = entry == Some(&len);
                assert_eq!(why.contains("without a stop"), at_its_end, "{len}: {why}");
            }
        }
        assert!(lines.starts_with(&written), "{len}");
        assert!(written.is_empty() || written.ends_with('\n'), "{len}");
        counts.push(written.lines().count());
    }
    assert!(counts.is_sorted(), "{counts:?}");
    // The stop entry produces the last summary and the stop line.
    assert_eq!(counts.last().unwrap() + 2, lines.lines().count());
}

/// Every entry of these files has a valid checksum. They are rejected all the same, because the
/// first entry is missing or repeated, or because an entry follows the last.
fn an_entry_twice_or_missing() {
    let replays = Replays::new("entries");
    let good = sample();
    let places = places(&good);
    let (first, second) = (places[0], places[1]);
    let stop = places[places.len() - 2];
    let of = |parts: &[&[u8]]| replays.failure(&parts.concat());
    let (written, why) = of(&[&good[..first], &good[second..]]);
    assert!(why.contains("at byte 24: a start is missing"), "{why}");
    assert_eq!(written, "");
    let (written, why) = of(&[&good[..second], &good[first..]]);
    assert_eq!(offset(&why), Some(second), "{why}");
    assert_eq!(written.lines().count(), 1);
    let (written, why) = of(&[&good, &good[stop..]]);
    assert!(why.contains("something follows the stop"), "{why}");
    assert_eq!(written, replays.lines(&good));
}
