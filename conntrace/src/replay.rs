//! `conntrace replay`: makes lines of a recording, by the worker that makes them
//! of the live kernel's records. Nothing but the recording is asked.

use std::io::{self, BufReader, ErrorKind, Read};

use crate::{
    output::Sink,
    recording::{ReadError, Reader},
    worker::{Labelling, Worker},
};

/// Why a replay ended before the recording did.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The reader of the lines has gone: not a failure of ours.
    #[error("the output was closed")]
    OutputClosed,
    /// The lines cannot be written.
    #[error("cannot write lines")]
    Output(#[source] io::Error),
    /// The recording is no good, or not to its end.
    #[error(transparent)]
    Recording(#[from] ReadError),
}

/// Writes the lines of `recording` to `sink`, as fast as it can.
///
/// # Errors
/// When the recording or the output ends it early; the lines before that have
/// been written.
pub fn run(
    recording: impl Read,
    sink: Box<dyn Sink + Send>,
    labelling: Labelling,
) -> Result<(), ReplayError> {
    let mut reader = Reader::new(BufReader::new(recording))?;
    let mut worker = Worker::of_recording(sink, labelling);
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
    if error.kind() == ErrorKind::BrokenPipe {
        ReplayError::OutputClosed
    } else {
        ReplayError::Output(error)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, mpsc};

    use super::*;
    use crate::{
        agent::Dropped,
        event::{Event, tests as lines},
        label::Label,
        output::{Formatted, Json},
        recording::tests::Disk,
        source::Counters,
        wire::tests::{put, refused},
        worker::{Batch, Item, Purpose, Snapshot, WireRecord},
    };

    /// As without options.
    fn as_live() -> Labelling {
        let visible = |label: &Label| !label.is_hidden();
        Labelling {
            patience_ms: 200,
            labels: Label::ALL.into_iter().filter(visible).collect(),
            stalls: true,
            limit: None,
            causes: false,
        }
    }

    /// Output that is read afterwards.
    #[derive(Clone, Default)]
    struct Output(Arc<Mutex<Vec<u8>>>);

    impl Output {
        fn json(&self) -> Box<dyn Sink + Send> {
            Box::new(Formatted::new(Json::default(), self.clone()))
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl io::Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Given up by the application after 150 ms.
    fn cancelled() -> WireRecord {
        use conntrace_common::record::Record;
        use std::mem::offset_of;

        let mut bytes = refused();
        put(&mut bytes, offset_of!(Record, flags), &[0]);
        put(&mut bytes, offset_of!(Record, error), &[0; 4]);
        let at_ns = 150_001_000_u64.to_ne_bytes();
        put(&mut bytes, offset_of!(Record, at_ns), &at_ns);
        bytes
    }

    fn items() -> Vec<Item> {
        let Event::Start(start) = lines::start_line().event else {
            panic!("a start line");
        };
        let snapshot = |purpose, endings, lost| {
            let counters = Counters {
                attempts: endings + lost,
                endings,
                ring_full: lost,
                ..Counters::default()
            };
            Box::new(Snapshot {
                purpose,
                counters,
                in_map: 0,
                dropped: Dropped::default(),
            })
        };
        let batch = |records, snapshot| {
            Item::Batch(Batch {
                records,
                snapshot: Some(snapshot),
            })
        };
        let malformed = [7; size_of::<WireRecord>()];
        vec![
            Item::Start(Box::new(start)),
            batch(
                vec![refused(), cancelled()],
                (1, snapshot(Purpose::Summary, 3, 0)),
            ),
            batch(
                vec![malformed, refused()],
                (2, snapshot(Purpose::Loss, 4, 2)),
            ),
            batch(vec![], (0, snapshot(Purpose::Stop("SIGINT".into()), 4, 2))),
        ]
    }

    /// The lines of a live worker, and its recording on a disk this large.
    fn live(room: usize) -> (String, Vec<u8>) {
        let (disk, output) = (Disk::new(room), Output::default());
        let (queue, received) = mpsc::channel();
        items()
            .into_iter()
            .for_each(|item| queue.send(item).unwrap());
        drop(queue);
        let worker = Worker::new(output.json(), as_live(), Some(disk.recorder()));
        worker.run(&received).unwrap();
        let recording = disk.bytes().clone();
        (output.text(), recording)
    }

    fn replay(recording: &[u8], labelling: Labelling) -> (String, Result<(), ReplayError>) {
        let output = Output::default();
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
        // Room for the first of the two batches of two records.
        let (lines, _) = live(recording.len() * 2 / 3);
        assert_eq!(lines.lines().count(), whole.lines().count());
        let stop = lines.lines().last().unwrap();
        assert!(stop.contains("\"unrecorded\":2,"), "{stop}");
        assert!(whole.lines().last().unwrap().contains("\"unrecorded\":0,"));
    }

    #[test]
    fn a_closed_output_is_told_apart() {
        struct Closed;
        impl Sink for Closed {
            fn write(&mut self, _: &crate::event::Line) -> io::Result<()> {
                Err(ErrorKind::BrokenPipe.into())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let ended = run(&live(usize::MAX).1[..], Box::new(Closed), as_live());
        assert!(matches!(ended, Err(ReplayError::OutputClosed)));
    }
}
