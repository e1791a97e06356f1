//! Fuzz targets: each function panics if its property does not hold for the bytes. `cargo xtask
//! fuzz` runs them with libFuzzer; the tests `any_bytes` of `offline` try some bytes in every run.

use std::{
    io::{self, Write},
    iter,
    net::Ipv6Addr,
    num::NonZeroU64,
    sync::{Arc, Mutex},
    time::Instant,
};

use clap::Parser as _;
use conntrace::{
    capture::{CgroupId, NetnsInode, Network, PortRange, TaskName},
    cli::Cli,
    output::{Format, Json, Output, Text, event::LINE_LEN_MAX},
    pipeline::{Labelling, Worker, replay},
    record::{self, CompleteRecord, Label, WireRecord},
    recording::{Entry, Recorder},
};
use conntrace_btf::Btf;

/// Size of a recording's entry before its kind: length and checksum.
const FRAME_LEN: usize = 8;

/// Decodes any bytes as a complete record or an error, and renders valid lines for any record of the
/// kernel side and any complete one.
pub fn wire(bytes: &[u8]) {
    assert!(record::decode(bytes).is_ok() <= (bytes.len() == size_of::<CompleteRecord>()));
    for (output, limit) in outputs().into_iter().zip([None, NonZeroU64::new(1)]) {
        let mut worker = Worker::of_recording(output, labelling(limit));
        let (received, _): (&[WireRecord], _) = bytes.as_chunks();
        for record in received {
            worker.take(record, Instant::now()).expect("takes all");
        }
        let (complete, _): (&[CompleteRecord], _) = bytes.as_chunks();
        for record in complete {
            worker.replay(Entry::Record(*record)).expect("takes all");
        }
        worker.finish().expect("takes all");
    }
}

/// Replays any bytes up to the first invalid entry.
pub fn recording(bytes: &[u8]) {
    for bytes in [bytes, &resealed(bytes)] {
        for (output, limit) in outputs().into_iter().zip([NonZeroU64::new(1), None]) {
            let ended = replay::run(bytes, output, labelling(limit));
            assert!(!ended.is_err_and(|error| error.to_string().is_empty()));
        }
    }
}

/// Parses any text as an option's value, or reports an error.
pub fn filter(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(TaskName(name)) = text.parse() {
        assert_eq!(name.last(), Some(&0));
    }
    if let Ok(Network { addr, prefix_len }) = text.parse() {
        assert!(u32::from(prefix_len) <= Ipv6Addr::BITS);
        let again = format!("{addr}/{prefix_len}").parse();
        assert_eq!(again, Ok(Network { addr, prefix_len }));
    }
    if let Ok(PortRange(range)) = text.parse() {
        let again = format!("{}-{}", range.start(), range.end()).parse();
        assert_eq!(again, Ok(PortRange(range)));
    }
    if let Ok(NetnsInode(inode)) = text.parse() {
        assert_eq!(inode.to_string().parse(), Ok(NetnsInode(inode)));
    }
    let _ = text.parse::<CgroupId>();
    let words = iter::once("conntrace").chain(text.split_ascii_whitespace());
    if let Err(error) = Cli::try_parse_from(words) {
        assert!(!error.to_string().is_empty());
    }
}

/// Parses any bytes as BTF or an error, and queries the result.
pub fn btf(bytes: &[u8]) {
    let Ok(btf) = Btf::parse(bytes) else {
        return;
    };
    for path in [
        "sock.sk_err",
        "sock.__sk_common.skc_daddr",
        "task_struct.comm",
        "sock",
        ".",
    ] {
        let found = btf.member(path);
        assert!(!found.is_err_and(|error| error.to_string().is_empty()));
    }
    let beside = btf.enumerators_beside("SKB_DROP_REASON_NO_SOCKET");
    let found = btf.enumerator("SKB_DROP_REASON_NO_SOCKET");
    assert_eq!(found.is_some(), !beside.is_empty());
}

fn labelling(limit: Option<NonZeroU64>) -> Labelling {
    Labelling {
        patience_ms: 200,
        labels: Label::ALL.to_vec(),
        stalls: true,
        limit,
        causes: true,
        explained: true,
        taken_ports: true,
    }
}

/// Returns an output of each format, which checks the lines.
fn outputs() -> [Output; 2] {
    [
        output(Json::default(), Some(LINE_LEN_MAX)),
        output(Text::default(), None),
    ]
}

fn output(format: impl Format + 'static, len_max: Option<usize>) -> Output {
    let lines = LineSink {
        line: Vec::new(),
        len_max,
    };
    Output::direct(Box::new(format), lines)
}

/// Checks lines, and that JSON does not exceed a length.
struct LineSink {
    line: Vec<u8>,
    len_max: Option<usize>,
}

impl Write for LineSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.line.extend(piece);
            if piece.ends_with(b"\n") {
                self.check();
                self.line.clear();
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        assert!(self.line.is_empty(), "ends within a line");
        Ok(())
    }
}

impl LineSink {
    fn check(&self) {
        let line = str::from_utf8(&self.line).expect("UTF-8");
        assert!(
            !line.trim_end_matches('\n').contains(char::is_control),
            "{line:?}"
        );
        if let Some(len_max) = self.len_max {
            assert!(line.len() <= len_max, "{} bytes: {line}", line.len());
            let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
            assert!(value["type"].is_string(), "{line}");
        }
    }
}

/// Rebuilds the bytes as a recording with valid checksums, so that its entries are parsed: a valid
/// header, and every entry that has a length.
fn resealed(bytes: &[u8]) -> Vec<u8> {
    let mut sealed = header();
    let mut rest = bytes.get(sealed.len()..).unwrap_or_default();
    while let Some((frame, after)) = rest.split_first_chunk::<FRAME_LEN>() {
        let [l0, l1, l2, l3, ..] = *frame;
        let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let (body, next) = after.split_at(len.min(after.len()));
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
        let checksum = crc32fast::hash(&[&length, body].concat());
        sealed.extend(length);
        sealed.extend(checksum.to_le_bytes());
        sealed.extend(body);
        rest = next;
    }
    sealed
}

/// Returns the header of a recording in this version's format.
fn header() -> Vec<u8> {
    let file = FuzzFile::default();
    drop(Recorder::new(Box::new(file.clone()), String::new()));
    let header = file.0.lock().expect("no writer has panicked");
    header.clone()
}

/// File in memory.
#[derive(Clone, Default)]
struct FuzzFile(Arc<Mutex<Vec<u8>>>);

impl Write for FuzzFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no writer has panicked").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
