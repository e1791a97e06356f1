//! Recording that needs no kernel, made by the recorder itself.

use std::{
    io::{self, Write},
    mem::offset_of,
    sync::{Arc, Mutex},
};

use conntrace::{
    output::event::{Coverage, Owner, Start},
    record::{CompleteRecord, Counters},
    recording::{Purpose, Recorder, Snapshot},
};
use conntrace_common::record::{
    AF_INET, FLAG_HEARD, KIND_ENDING, RECORD_VERSION, RawRecord, STATE_CLOSE,
};
use jiff::{SignedDuration, Timestamp};

/// Two refusals of different callers, totals between and after them.
pub fn sample() -> Vec<u8> {
    let file = MemoryFile::default();
    let mut recorder = Recorder::new(Box::new(file.clone()), "memory".to_owned()).unwrap();
    recorder.start(&"web-1".into(), (Timestamp::UNIX_EPOCH, 0), &start());
    recorder.clock(Some(SignedDuration::from_secs(1_700_000_000)));
    recorder.record(&refused(), Some(&owner("/usr/bin/curl")));
    recorder.snapshot(Timestamp::UNIX_EPOCH, &totals(1, Purpose::Summary));
    recorder.record(&refused(), Some(&owner("/usr/bin/wget")));
    let stop = Purpose::Stop("SIGTERM".into());
    recorder.snapshot(Timestamp::UNIX_EPOCH, &totals(2, stop));
    drop(recorder);
    let bytes = file.0.lock().unwrap();
    bytes.clone()
}

/// Shared buffer that is written like a file.
#[derive(Clone, Default)]
struct MemoryFile(Arc<Mutex<Vec<u8>>>);

impl Write for MemoryFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn start() -> Start {
    Start {
        version: "0.1.0".into(),
        boot_id: None,
        kernel: "6.18.5".to_owned(),
        tier: "tracepoint".into(),
        pid: 77,
        hooks: Vec::new(),
        coverage: Coverage::default(),
        limits: Vec::new(),
    }
}

fn owner(exe: &str) -> Owner {
    Owner {
        exe: Some(exe.into()),
        ..Owner::default()
    }
}

fn totals(endings: u64, purpose: Purpose) -> Snapshot {
    Snapshot {
        purpose,
        counters: Counters {
            attempts: endings,
            endings,
            ..Counters::default()
        },
        in_map: 0,
        malformed: 0,
        undelivered: 0,
        inspectors_abandoned: 0,
        table: None,
    }
}

/// An IPv4 attempt that a RST ended.
fn refused() -> CompleteRecord {
    let mut bytes = [0; size_of::<CompleteRecord>()];
    for (at, value) in [
        (offset_of!(RawRecord, kind), &[KIND_ENDING][..]),
        (offset_of!(RawRecord, state), &[STATE_CLOSE]),
        (offset_of!(RawRecord, version), &[RECORD_VERSION]),
        (offset_of!(RawRecord, flags), &[FLAG_HEARD]),
        (
            offset_of!(RawRecord, attempt.family),
            &AF_INET.to_ne_bytes(),
        ),
        (offset_of!(RawRecord, at_ns), &310_000_u64.to_ne_bytes()),
        (
            offset_of!(RawRecord, attempt.opening.pid),
            &4242_u32.to_ne_bytes(),
        ),
        (
            offset_of!(RawRecord, attempt.opening.tid_or_cpu),
            &4243_u32.to_ne_bytes(),
        ),
        (offset_of!(RawRecord, attempt.opening.comm), b"curl"),
        (offset_of!(RawRecord, attempt.remote_addr), &[10, 0, 0, 5]),
        (offset_of!(RawRecord, error), &111_u32.to_ne_bytes()),
        (
            offset_of!(RawRecord, syns_or_connects),
            &1_u32.to_ne_bytes(),
        ),
    ] {
        bytes[at..at + value.len()].copy_from_slice(value);
    }
    bytes
}
