//! Replay of a recording (`conntrace replay`) by the same worker that handles live records. Only
//! the recording is read.

use std::io::{self, BufReader, Read};

use super::{Labelling, Worker};
use crate::{
    output::{self, Output},
    recording::{ReadError, RecordingReader},
};

/// Error that ends a replay early.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The reader has closed the output, which is a clean stop.
    #[error("the output was closed")]
    OutputClosed,
    /// The lines cannot be written.
    #[error("cannot write lines")]
    Output(#[source] io::Error),
    /// The recording is invalid or damaged.
    #[error(transparent)]
    Recording(#[from] ReadError),
}

/// Writes the lines of `recording` to `output`, as fast as possible.
///
/// # Errors
/// Fails when the recording or the output does; the lines before that are written.
pub fn run(recording: impl Read, output: Output, labelling: Labelling) -> Result<(), ReplayError> {
    let mut reader = RecordingReader::new(BufReader::new(recording))?;
    let mut worker = Worker::of_recording(output, labelling);
    let ended = loop {
        match reader.next_entry() {
            Ok(Some(entry)) => worker.replay(entry).map_err(output_error)?,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error.into()),
        }
    };
    worker.finish().map_err(output_error)?;
    ended
}

fn output_error(error: io::Error) -> ReplayError {
    if output::is_closed(&error) {
        ReplayError::OutputClosed
    } else {
        ReplayError::Output(error)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::ErrorKind,
        sync::{Arc, Mutex},
        time::{Duration, Instant},
    };

    use std::thread;

    use super::*;
    use crate::{
        output::{
            Json,
            event::{Event, tests as lines},
        },
        record::{
            CompleteRecord, Counters, Label,
            decode::tests::{put, refused},
        },
        recording::{Purpose, Snapshot, tests::Disk},
    };

    /// Returns the settings of a run without options.
    fn as_live() -> Labelling {
        let visible = |label: &Label| !label.is_hidden();
        Labelling {
            patience_ms: 200,
            labels: Label::ALL.into_iter().filter(visible).collect(),
            stalls: true,
            limit: None,
            causes: false,
            explained: true,
            taken_ports: true,
        }
    }

    /// Output that a test can read afterwards.
    #[derive(Clone, Default)]
    struct SharedOutput(Arc<Mutex<Vec<u8>>>);

    impl SharedOutput {
        fn json(&self) -> Output {
            Output::direct(Box::new(Json::default()), self.clone())
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl io::Write for SharedOutput {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Returns the record of an attempt that the application gave up after 150 ms.
    fn cancelled() -> CompleteRecord {
        use conntrace_common::record::RawRecord;
        use std::mem::offset_of;

        let mut bytes = refused();
        put(&mut bytes, offset_of!(RawRecord, flags), &[0]);
        put(&mut bytes, offset_of!(RawRecord, error), &[0; 4]);
        let at_ns = 150_001_000_u64.to_ne_bytes();
        put(&mut bytes, offset_of!(RawRecord, at_ns), &at_ns);
        bytes
    }

    /// Passes sample records and totals to a worker.
    fn drive(worker: &mut Worker) {
        let snapshot = |purpose, endings, lost| Snapshot {
            table: (purpose == Purpose::Loss).then(lines::table_loss),
            purpose,
            counters: Counters {
                attempts: endings + lost,
                endings,
                ring_full: lost,
                ..Counters::default()
            },
            in_map: 0,
            malformed: 0,
            undelivered: 0,
            inspectors_abandoned: 0,
        };
        let Event::Start(start) = lines::start_line().event else {
            panic!("a start line");
        };
        let (now, at) = (Instant::now(), lines::at());
        let malformed = [7; size_of::<CompleteRecord>()];
        worker.start(start, at, 1).unwrap();
        let take = |worker: &mut Worker, records: &[CompleteRecord]| {
            worker.follow_clock();
            for record in records {
                worker.record(record, now).unwrap();
            }
            while !worker.is_settled() {
                thread::sleep(Duration::from_millis(1));
                worker.settle(Instant::now()).unwrap();
            }
            worker.hand_over().unwrap();
        };
        take(worker, &[refused()]);
        let summary = snapshot(Purpose::Summary, 3, 0);
        worker.snapshot(&summary, at).unwrap();
        take(worker, &[cancelled()]);
        take(worker, &[malformed, refused()]);
        let loss = snapshot(Purpose::Loss, 4, 2);
        worker.snapshot(&loss, at).unwrap();
        let stop = snapshot(Purpose::Stop("SIGINT".into()), 4, 2);
        worker.snapshot(&stop, at).unwrap();
        worker.hand_over().unwrap();
    }

    /// Returns the lines of a live worker, and its recording on a disk of this size.
    fn live(room: usize) -> (String, Vec<u8>) {
        let (disk, output) = (Disk::new(room), SharedOutput::default());
        let mut worker = Worker::new(
            output.json(),
            as_live(),
            Duration::from_secs(20),
            Some(disk.recorder()),
        );
        drive(&mut worker);
        drop(worker);
        let recording = disk.bytes().clone();
        (output.text(), recording)
    }

    fn replay(recording: &[u8], labelling: Labelling) -> (String, Result<(), ReplayError>) {
        let output = SharedOutput::default();
        let ended = run(recording, output.json(), labelling);
        (output.text(), ended)
    }

    #[test]
    fn makes_the_same_lines() {
        let (lines, recording) = live(usize::MAX);
        let (replayed, ended) = replay(&recording, as_live());
        ended.unwrap();
        assert_eq!(replayed, lines);
        let types: Vec<_> = lines
            .lines()
            .filter_map(|line| line.split("\"type\":\"").nth(1)?.split('"').next())
            .collect();
        assert_eq!(
            types,
            [
                "start", "outcome", "summary", "outcome", "loss", "summary", "stop"
            ]
        );
    }

    #[test]
    fn other_options_make_other_lines_of_it() {
        let (_, recording) = live(usize::MAX);
        let labels = |labelling| -> Vec<String> {
            let (lines, _) = replay(&recording, labelling);
            let outcomes = lines
                .lines()
                .filter_map(|line| line.split_once("\"label\":\""));
            outcomes
                .filter(|(before, _)| before.contains("\"type\":\"outcome\""))
                .map(|(_, after)| after.split('"').next().unwrap().to_owned())
                .collect()
        };
        let all = Labelling {
            labels: Label::ALL.to_vec(),
            ..as_live()
        };
        assert_eq!(labels(as_live()), ["refused", "refused"]);
        assert_eq!(labels(all), ["refused", "cancelled", "refused"]);
        let impatient = Labelling {
            patience_ms: 100,
            ..as_live()
        };
        assert_eq!(labels(impatient), ["refused", "timed_out", "refused"]);
    }

    #[test]
    fn damage_ends_it_after_the_lines_before() {
        let (lines, recording) = live(usize::MAX);
        for len in 0..recording.len() {
            let (replayed, ended) = replay(&recording[..len], as_live());
            assert!(lines.starts_with(&replayed));
            assert!(matches!(
                ended,
                Err(ReplayError::Recording(
                    ReadError::Empty | ReadError::Damaged { .. }
                ))
            ));
        }
    }

    #[test]
    fn a_recording_that_fails_stops_no_line_and_is_counted() {
        let (whole, recording) = live(usize::MAX);
        // Room for the first of two batches with two records each.
        let (lines, _) = live(recording.len() * 2 / 3);
        assert_eq!(lines.lines().count(), whole.lines().count());
        let stop = lines.lines().last().unwrap();
        assert!(stop.contains("\"unrecorded\":2,"), "{stop}");
        assert!(whole.lines().last().unwrap().contains("\"unrecorded\":0,"));
    }

    #[test]
    fn a_closed_output_is_told_apart() {
        struct Closed;
        impl io::Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(ErrorKind::BrokenPipe.into())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let output = Output::direct(Box::new(Json::default()), Closed);
        let ended = run(&live(usize::MAX).1[..], output, as_live());
        assert!(matches!(ended, Err(ReplayError::OutputClosed)));
    }
}
