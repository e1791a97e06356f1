//! The drain: moves records from the source into a bounded queue and waits for
//! nothing else. The worker behind the queue may block on its output.

#[cfg(test)]
mod interleavings;
mod outbox;

use std::{
    io,
    pin::pin,
    sync::mpsc::{SyncSender, TrySendError, sync_channel},
    thread,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::oneshot,
    time::{Instant, MissedTickBehavior, interval_at, sleep, timeout},
};

use crate::{
    event::{Start, Totals},
    output::Sink,
    recording::Recorder,
    source::{Counters, Source},
    worker::{Batch, Item, Labelling, Purpose, Snapshot, Worker},
};
use outbox::{Outbox, Queue, Rest};

/// Records that wait for the worker: 3.1 MB, a tenth of a second at the highest
/// rate one CPU produces. As many again are with the worker, and in the batch
/// that lies ready for it.
const PENDING_MAX: usize = 16_384;

/// Batches that lie ready for the worker.
const BATCHES_MAX: usize = 1;

/// After a drain that found something, the ring is left alone this long: it
/// wakes its reader for the first record after each time it was emptied, and
/// every wake costs the connecting process several microseconds. The ring holds
/// what comes meanwhile twentyfold.
const NAP: Duration = Duration::from_millis(4);

/// How often losses are looked for while records flow.
const LOSS_CHECK: Duration = Duration::from_secs(1);

/// How long a stuck output may delay the end.
const STOP_MAX: Duration = Duration::from_secs(5);

/// How the agent works, whatever the source.
#[derive(Debug)]
pub struct Config {
    /// What the start line says.
    pub start: Start,
    /// How attempts are labelled and which lines are printed.
    pub labelling: Labelling,
    /// Between two summaries; `None` for none.
    pub summary_every: Option<Duration>,
    /// Where everything is noted for a replay.
    pub recorder: Option<Recorder>,
}

/// Why the agent ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The reader of the lines has gone: not a failure of ours.
    #[error("the output was closed")]
    OutputClosed,
    /// The lines cannot be written.
    #[error("cannot write lines")]
    Output(#[source] io::Error),
    /// The output does not take the last lines.
    #[error("the output took no line for {} s; lines were lost", STOP_MAX.as_secs())]
    OutputStuck,
    /// The source failed.
    #[error("cannot read from the kernel")]
    Source(#[source] io::Error),
    /// No thread, or it died.
    #[error("the worker thread failed")]
    Worker(#[source] Option<io::Error>),
}

/// Runs until `stop` gives the reason, then drains to the end and says what it
/// came to.
///
/// # Errors
/// When the source or the output fails first.
pub async fn run<S: Source>(
    source: S,
    sink: Box<dyn Sink + Send>,
    config: Config,
    stop: impl Future<Output = &'static str>,
) -> Result<Totals, AgentError> {
    let (queue, items) = sync_channel(BATCHES_MAX);
    let (done_sender, mut done) = oneshot::channel();
    let worker = Worker::new(sink, config.labelling, config.recorder);
    thread::Builder::new()
        .name("conntrace-write".to_owned())
        .spawn(move || {
            // Nobody listens any more once the drain has failed.
            let _ = done_sender.send(worker.run(&items));
        })
        .map_err(|error| AgentError::Worker(Some(error)))?;
    let mut drain = Drain {
        source,
        queue,
        outbox: Outbox::new(PENDING_MAX),
        seen_lost: (0, Dropped::default()),
    };
    // The first item: there is room for it.
    let _ = drain.queue.try_send(Item::Start(Box::new(config.start)));
    let ended = drain
        .until_stopped(config.summary_every, stop, &mut done)
        .await?;
    let worker_result = match ended {
        Ended::Worker(result) => result,
        Ended::Told(reason) => {
            drain.finish(reason).await?;
            drop(drain);
            timeout(STOP_MAX, done)
                .await
                .map_err(|_| AgentError::OutputStuck)?
        }
    };
    worker_result
        .map_err(|_| AgentError::Worker(None))?
        .map_err(output_error)
}

/// What ended the drain.
enum Ended {
    /// It was told to stop, for this reason.
    Told(&'static str),
    /// The worker has ended; on its own it does so only with an error.
    Worker(Result<io::Result<Totals>, oneshot::error::RecvError>),
}

fn output_error(error: io::Error) -> AgentError {
    if error.kind() == io::ErrorKind::BrokenPipe {
        AgentError::OutputClosed
    } else {
        AgentError::Output(error)
    }
}

/// Records that never reached the worker, for want of room or of sense.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Dropped {
    /// Endings.
    pub endings: u64,
    /// Stalls.
    pub stalls: u64,
    /// Not even as long as a record.
    pub malformed: u64,
}

struct Drain<S> {
    source: S,
    queue: SyncSender<Item>,
    outbox: Outbox,
    /// What the last snapshot said was lost.
    seen_lost: (u64, Dropped),
}

impl<S: Source> Drain<S> {
    /// Drains until told to stop, or until the worker has ended.
    async fn until_stopped(
        &mut self,
        summary_every: Option<Duration>,
        stop: impl Future<Output = &'static str>,
        done: &mut oneshot::Receiver<io::Result<Totals>>,
    ) -> Result<Ended, AgentError> {
        let mut stop = pin!(stop);
        let mut summary = summary_every.map(|every| {
            let mut ticks = interval_at(Instant::now() + every, every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        let mut loss_check = Instant::now() + LOSS_CHECK;
        loop {
            let moved = self.drain();
            if moved > 0 && Instant::now() >= loss_check {
                self.check_loss()?;
                loss_check = Instant::now() + LOSS_CHECK;
            }
            let rest = self.outbox.rest_after(moved);
            let summary_due = async {
                match &mut summary {
                    Some(ticks) => drop(ticks.tick().await),
                    None => std::future::pending().await,
                }
            };
            let wake = async {
                match rest {
                    Rest::Nap => {
                        sleep(NAP).await;
                        Ok(())
                    }
                    Rest::UntilWoken => self.source.ready().await,
                }
            };
            tokio::select! {
                reason = &mut stop => return Ok(Ended::Told(reason)),
                result = &mut *done => return Ok(Ended::Worker(result)),
                () = summary_due => self.summarise(Purpose::Summary)?,
                woken = wake => woken.map_err(AgentError::Source)?,
            }
        }
    }

    /// Moves what is in the ring towards the worker; returns how many records
    /// there were. The ring holds more than waits at most: after a while in which
    /// we could not run, a worker with nothing to do takes it in two batches.
    fn drain(&mut self) -> usize {
        let (queue, outbox) = (&mut self.queue, &mut self.outbox);
        let moved = self.source.drain(|record| outbox.take(record, queue));
        outbox.offer(queue);
        moved
    }

    /// Takes the totals and hands them on behind the records that led to them.
    fn summarise(&mut self, purpose: Purpose) -> Result<(), AgentError> {
        self.drain();
        let snapshot = self.snapshot(purpose)?;
        self.seen_lost = (lost_in_kernel(&snapshot.counters), snapshot.dropped);
        self.outbox.put(snapshot);
        self.outbox.offer(&mut self.queue);
        Ok(())
    }

    /// Closes are read before opens: an attempt that opens in between is then
    /// counted as begun, and never one as ended that did not begin.
    fn snapshot(&mut self, purpose: Purpose) -> Result<Snapshot, AgentError> {
        let closes = self.source.counters().map_err(AgentError::Source)?;
        let in_map = self.source.in_map();
        let opens = self.source.counters().map_err(AgentError::Source)?;
        Ok(Snapshot {
            purpose,
            counters: Counters {
                attempts: opens.attempts,
                ..closes
            },
            in_map,
            dropped: self.outbox.dropped(),
        })
    }

    fn check_loss(&mut self) -> Result<(), AgentError> {
        let counters = self.source.counters().map_err(AgentError::Source)?;
        // Any totals tell the loss: none that wait are replaced by these.
        let lost = (lost_in_kernel(&counters), self.outbox.dropped());
        if !self.outbox.has_totals() && self.seen_lost != lost {
            self.summarise(Purpose::Loss)?;
        }
        Ok(())
    }

    /// Takes the programs off their hooks, moves the rest, and lets the output
    /// take its time, but not for ever.
    async fn finish(&mut self, reason: &'static str) -> Result<(), AgentError> {
        self.source.detach();
        // A program that another CPU was running may still hand over its record.
        sleep(NAP).await;
        self.summarise(Purpose::Stop(reason.into()))?;
        let deadline = Instant::now() + STOP_MAX;
        while self.outbox.waits() {
            if Instant::now() >= deadline {
                return Err(AgentError::OutputStuck);
            }
            sleep(NAP).await;
            self.outbox.offer(&mut self.queue);
        }
        Ok(())
    }
}

impl Queue for SyncSender<Item> {
    fn hand_over(&mut self, batch: Batch) -> Result<(), Batch> {
        match self.try_send(Item::Batch(batch)) {
            Err(TrySendError::Full(Item::Batch(back))) => Err(back),
            // A worker that is gone has ended with an error, which ends us too.
            Ok(()) | Err(TrySendError::Disconnected(_) | TrySendError::Full(Item::Start(_))) => {
                Ok(())
            }
        }
    }
}

fn lost_in_kernel(counters: &Counters) -> u64 {
    counters.ring_full + counters.untracked + counters.ending_missed + counters.stall_ring_full
}
