//! Threads of the agent: the worker reads the ring and renders lines, the writer writes them, and
//! the calling thread waits for signals.

mod control;
mod diagnosed;
mod diagnoser;
mod reader;
pub mod replay;
mod rule_run;
pub mod service;
#[cfg(test)]
mod tests;
mod worker;

use std::{io, pin::pin, sync::Arc, thread, time::Duration};

use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until, timeout},
};

use self::service::Service;
use crate::{
    capture::{
        Source,
        privileges::{self, Capability},
    },
    output::{
        Output, Progress, WriteError, Writer,
        event::{Start, Totals},
    },
    recording::Recorder,
};
pub(crate) use control::Control;
use reader::RingReader;
pub use worker::{Labelling, Worker};

/// Time limit for the worker to end, and for an output that accepts nothing.
const STOP_MAX: Duration = Duration::from_secs(5);

/// Time limit for an output that accepts the last lines slowly.
const WRITE_MAX: Duration = Duration::from_secs(15);

/// Settings that do not depend on the source.
#[derive(Debug)]
pub struct Config {
    /// Content of the start line.
    pub start: Start,
    /// Labels of attempts, and selection of the lines printed.
    pub labelling: Labelling,
    /// Maximum time that a line waits for its cause.
    pub diagnosis_timeout: Duration,
    /// Time between two summaries; `None` for none.
    pub summary_every: Option<Duration>,
    /// Every thread drops the capabilities that it does not need if true.
    pub drops_privileges: bool,
    /// Recorder of everything a replay needs.
    pub recorder: Option<Recorder>,
    /// Service manager to notify.
    pub service: Option<Service>,
}

/// Error that ends the agent early.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The lines cannot be written, or their reader has closed the output.
    #[error(transparent)]
    Output(WriteError),
    /// The output does not accept the last lines; their number.
    #[error("the output is blocked or too slow; the last {0} lines were not written")]
    OutputStuck(u64),
    /// The source failed.
    #[error("cannot read from the kernel")]
    Source(#[source] io::Error),
    /// The worker does not end.
    #[error("the worker did not end within {} s; lines were lost", STOP_MAX.as_secs())]
    WorkerStuck,
    /// A thread could not be started, or panicked.
    #[error("the {0} thread failed")]
    Thread(&'static str, #[source] Option<io::Error>),
}

impl AgentError {
    /// Returns true if the reader closed the output, which is a clean stop.
    #[must_use]
    pub fn is_closed_output(&self) -> bool {
        matches!(self, Self::Output(WriteError::Closed))
    }
}

/// Runs until `stop` returns a reason, then drains the source and writes the totals.
///
/// # Errors
/// Fails when the source or the output fails first.
pub async fn run<S: Source + Send + 'static>(
    source: S,
    (output, writer): (Output, Writer),
    mut config: Config,
    stop: impl Future<Output = &'static str>,
) -> Result<Totals, AgentError> {
    let control = Arc::new(Control::new().map_err(AgentError::Source)?);
    let progress = writer.progress();
    let service = config.service.take();
    let outputs = (output, writer);
    let (mut written, mut done) =
        start_threads(source, outputs, config, service.as_ref(), &control)?;
    let mut attended = pin!(service::attend(service.as_ref(), &control));
    let stopping = || {
        if let Some(service) = &service {
            service.stopping();
        }
    };
    let mut stop = pin!(stop);
    let mut stopped_at = None;
    let mut output_ended = None;
    let totals = loop {
        let is_late = async {
            match stopped_at {
                Some(at) => sleep_until(at + STOP_MAX).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            reason = &mut stop, if stopped_at.is_none() => {
                control.stop(reason);
                stopping();
                stopped_at = Some(Instant::now());
            }
            result = &mut written, if output_ended.is_none() => {
                let result = result.map_err(|_| AgentError::Thread("write", None))?;
                // Without an error, the worker has ended.
                if let Err(error) = &result {
                    let is_closed = matches!(error, WriteError::Closed);
                    control.stop(if is_closed { "output closed" } else { "output failed" });
                    stopping();
                    stopped_at.get_or_insert_with(Instant::now);
                }
                output_ended = Some(result);
            }
            result = &mut done => break result.map_err(|_| AgentError::Thread("work", None))?,
            () = &mut attended => {}
            () = is_late => return Err(AgentError::WorkerStuck),
        }
    };
    let totals = totals.map_err(AgentError::Source)?;
    let written = match output_ended {
        Some(result) => result,
        None => last_lines(written, &progress).await?,
    };
    written.map_err(AgentError::Output)?;
    Ok(totals)
}

/// Starts the writer and the worker, and drops the capabilities that each thread does not need.
/// Returns what receives their results.
fn start_threads<S: Source + Send + 'static>(
    source: S,
    (output, writer): (Output, Writer),
    config: Config,
    service: Option<&Service>,
    control: &Arc<Control>,
) -> Result<Threads, AgentError> {
    let drops = config.drops_privileges;
    let written = spawn("write", move || {
        if drops {
            // A folder on the way to a file may be closed to others.
            let of_search = [Capability::CAP_DAC_READ_SEARCH];
            keep_only(if writer.reopens() { &of_search } else { &[] });
        }
        writer.run()
    })?;
    let reader = RingReader {
        source,
        worker: Worker::new(
            output,
            config.labelling,
            config.diagnosis_timeout,
            config.recorder,
        ),
        control: Arc::clone(control),
        summary_every: config.summary_every,
        // The interval is a third of the watchdog's, so that one round may be late.
        round_every: service.and_then(Service::ping_every),
        reports_status: service.is_some(),
        held: None,
    };
    let start = config.start;
    let done = spawn("work", move || {
        if drops {
            keep_only(&privileges::of_worker());
        }
        reader.run(start)
    })?;
    if drops {
        keep_only(&[]);
    }
    Ok((written, done))
}

/// Results of the writer and of the worker, once they end.
type Threads = (
    oneshot::Receiver<Result<(), WriteError>>,
    oneshot::Receiver<io::Result<Totals>>,
);

/// Waits for the writer while it makes progress, up to a limit.
async fn last_lines(
    mut written: oneshot::Receiver<Result<(), WriteError>>,
    progress: &Progress,
) -> Result<Result<(), WriteError>, AgentError> {
    let until = Instant::now() + WRITE_MAX;
    loop {
        let (before, _) = progress.waiting();
        if let Ok(result) = timeout(STOP_MAX, &mut written).await {
            return result.map_err(|_| AgentError::Thread("write", None));
        }
        let (after, lines) = progress.waiting();
        if after >= before || Instant::now() >= until {
            return Err(AgentError::OutputStuck(lines));
        }
    }
}

/// Drops all capabilities of the calling thread but these.
fn keep_only(wanted: &[Capability]) {
    if let Err(error) = privileges::keep_only(wanted) {
        log::warn!("{error}");
    }
}

/// Runs a function on a thread of its own.
fn spawn<T: Send + 'static>(
    name: &'static str,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<oneshot::Receiver<T>, AgentError> {
    let (sender, receiver) = oneshot::channel();
    thread::Builder::new()
        .name(format!("conntrace-{name}"))
        // Once the agent has failed, nobody receives the result.
        .spawn(move || drop(sender.send(run())))
        .map_err(|error| AgentError::Thread(name, Some(error)))?;
    Ok(receiver)
}
