//! The threads: one reads the ring and makes lines, one writes them, and the caller's waits
//! for signals.

mod control;
mod diagnoser;
mod reader;
pub mod replay;
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
    capture::Source,
    output::{
        Output, Progress, WriteError, Writer,
        event::{Start, Totals},
    },
    recording::Recorder,
};
pub(crate) use control::Control;
pub use diagnoser::Diagnoser;
use reader::RingReader;
pub use worker::{Labelling, Worker};

/// Longest delay of the end by the worker, and by an output that takes nothing.
const STOP_MAX: Duration = Duration::from_secs(5);

/// Longest delay of the end by an output that takes the last lines slowly.
const WRITE_MAX: Duration = Duration::from_secs(15);

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
    /// Service manager that is told how it goes.
    pub service: Option<Service>,
}

/// Why the agent ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The lines cannot be written, or nobody reads them any more.
    #[error(transparent)]
    Output(WriteError),
    /// The output does not take the last lines, of which there are so many.
    #[error("the output is blocked or too slow; the last {0} lines were not written")]
    OutputStuck(u64),
    /// The source failed.
    #[error("cannot read from the kernel")]
    Source(#[source] io::Error),
    /// The worker does not come to an end.
    #[error("the worker did not end within {} s; lines were lost", STOP_MAX.as_secs())]
    WorkerStuck,
    /// No thread, or it died.
    #[error("the {0} thread failed")]
    Thread(&'static str, #[source] Option<io::Error>),
}

impl AgentError {
    /// Returns true if nobody reads the lines any more, which is a clean stop.
    #[must_use]
    pub fn is_closed_output(&self) -> bool {
        matches!(self, Self::Output(WriteError::Closed))
    }
}

/// Runs until `stop` gives the reason, then reads to the end and writes the totals.
///
/// # Errors
/// When the source or the output fails first.
pub async fn run<S: Source + Send + 'static>(
    source: S,
    (output, writer): (Output, Writer),
    config: Config,
    stop: impl Future<Output = &'static str>,
) -> Result<Totals, AgentError> {
    let control = Arc::new(Control::new().map_err(AgentError::Source)?);
    let progress = writer.progress();
    let mut written = spawn("write", move || writer.run())?;
    let reader = RingReader {
        source,
        worker: Worker::new(output, config.labelling, config.recorder),
        control: Arc::clone(&control),
        summary_every: config.summary_every,
        // A third: one turn may be late.
        turn_every: config.service.as_ref().and_then(Service::ping_every),
        tells_status: config.service.is_some(),
        held: None,
    };
    let start = config.start;
    let mut done = spawn("work", move || reader.run(start))?;
    let mut attended = pin!(service::attend(config.service.as_ref(), &control));
    let stopping = || {
        if let Some(service) = &config.service {
            service.stopping();
        }
    };
    let mut stop = pin!(stop);
    let mut told_at = None;
    let mut output_ended = None;
    let totals = loop {
        let is_late = async {
            match told_at {
                Some(told) => sleep_until(told + STOP_MAX).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            reason = &mut stop, if told_at.is_none() => {
                control.stop(reason);
                stopping();
                told_at = Some(Instant::now());
            }
            result = &mut written, if output_ended.is_none() => {
                let result = result.map_err(|_| AgentError::Thread("write", None))?;
                // Without an error: the worker has ended.
                if let Err(error) = &result {
                    let is_closed = matches!(error, WriteError::Closed);
                    control.stop(if is_closed { "output closed" } else { "output failed" });
                    stopping();
                    told_at.get_or_insert_with(Instant::now);
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

/// Waits for the writer as long as it makes progress, though not for ever.
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

/// Runs this on a thread of its own.
fn spawn<T: Send + 'static>(
    name: &'static str,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<oneshot::Receiver<T>, AgentError> {
    let (sender, receiver) = oneshot::channel();
    thread::Builder::new()
        .name(format!("conntrace-{name}"))
        // Nobody listens any more once the agent has failed.
        .spawn(move || drop(sender.send(run())))
        .map_err(|error| AgentError::Thread(name, Some(error)))?;
    Ok(receiver)
}
