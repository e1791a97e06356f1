//! `conntrace demo`: provokes every kind of ending for real, on a stage of its
//! own, and holds what was traced against what was expected.

mod report;
mod scenes;

use std::{
    collections::HashMap,
    fs::File,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use anyhow::Context as _;
use jiff::Timestamp;
use tokio::sync::oneshot;

pub use report::Report;
use scenes::Why;
pub use scenes::client;

use crate::{
    agent::{self, AgentError, Config},
    cli::Format,
    event::{Event, Line, Outcome},
    kernel::{self, Settings, Tier},
    label::Label,
    live,
    output::Sink,
    stage::Stage,
    worker::Labelling,
};

/// The default of `--patience`, in milliseconds.
const PATIENCE_MS: u64 = 200;
/// How long a scene waits for its lines: the kernel may not trace an ending.
const LINES_MAX: Duration = Duration::from_secs(2);

/// Runs the whole demo, on this tier if one is given. Ends early when
/// `interrupted` does.
///
/// # Errors
/// When tracing or the stage cannot be set up.
pub async fn run(
    format: Format,
    tier: Option<Tier>,
    interrupted: impl Future<Output = &'static str>,
) -> anyhow::Result<Report> {
    let settings = Settings {
        report_established: true,
        trace_syscalls: kernel::tracefs().is_some(),
        tier,
        ..Settings::default()
    };
    let (tracer, start) = live::start(&settings)?;
    let coverage = start.coverage;
    let config = Config {
        start,
        labelling: Labelling {
            patience_ms: PATIENCE_MS,
            labels: Label::ALL.to_vec(),
            stalls: true,
            limit: None,
            causes: true,
        },
        summary_every: None,
        recorder: None,
    };
    let traced = Traced::default();
    let sink = Box::new(Audience {
        traced: traced.clone(),
        shown: format.to_stdout(),
    });
    let (played_sender, played) = oneshot::channel();
    let seen = traced.clone();
    thread::Builder::new()
        .name("demo".to_owned())
        .spawn(move || played_sender.send(scenes::play(&seen, coverage)))
        .context("cannot start the demo's thread")?;
    let mut acts = None;
    let stop = async {
        tokio::select! {
            result = played => {
                acts = Some(result);
                "played"
            }
            reason = interrupted => reason,
        }
    };
    let endings_missed = match agent::run(tracer, sink, config, stop).await {
        Ok(totals) => totals.lost.ending_missed,
        Err(AgentError::OutputClosed) => 0,
        Err(error) => return Err(error.into()),
    };
    let acts = acts
        .context("interrupted")??
        .context("cannot set the stage")?;
    Ok(Report::new(&acts, &traced.lock().outcomes, endings_missed))
}

/// What was traced on the demo's stages, by calling thread.
#[derive(Debug, Clone, Default)]
struct Traced(Arc<(Mutex<TracedInner>, Condvar)>);

#[derive(Debug, Default)]
struct TracedInner {
    /// Each stage's namespace by its inode number, which no other namespace can
    /// get while it is held.
    stages: HashMap<u32, Option<File>>,
    outcomes: HashMap<u32, Vec<Outcome>>,
}

impl Traced {
    /// Must come before the first connect on that stage.
    fn add_stage(&self, stage: &Stage) {
        let namespace = File::open("/proc/thread-self/ns/net").ok();
        self.lock().stages.insert(stage.netns, namespace);
    }

    fn add(&self, tid: u32, outcome: Outcome) {
        self.lock().outcomes.entry(tid).or_default().push(outcome);
        let (_, added) = &*self.0;
        added.notify_all();
    }

    /// Waits until a thread has this many lines, though not for ever.
    fn wait_for(&self, tid: u32, lines: usize) {
        let lacks_lines =
            |inner: &mut TracedInner| inner.outcomes.get(&tid).map_or(0, Vec::len) < lines;
        let (_, added) = &*self.0;
        let _ = added.wait_timeout_while(self.lock(), LINES_MAX, lacks_lines);
    }

    /// The cause of a thread's last line.
    fn last_why(&self, tid: u32) -> Option<Why> {
        let inner = self.lock();
        let last = inner.outcomes.get(&tid)?.last()?;
        last.cause
            .as_ref()
            .map(|cause| (cause.code, cause.certainty))
    }

    fn lock(&self) -> MutexGuard<'_, TracedInner> {
        let (inner, _) = &*self.0;
        inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Shows the lines from the demo's stages, and remembers their endings.
struct Audience {
    traced: Traced,
    shown: Box<dyn Sink + Send>,
}

impl Sink for Audience {
    fn write(&mut self, line: &Line) -> io::Result<()> {
        let (subject, details) = match &line.event {
            Event::Outcome(outcome) => (&outcome.subject, &outcome.details),
            Event::Stall(stall) => (&stall.subject, &stall.details),
            Event::Start(_)
            | Event::PortPressure(_)
            | Event::Loss(_)
            | Event::Summary(_)
            | Event::Stop(_) => return Ok(()),
        };
        let is_ours = |netns| self.traced.lock().stages.contains_key(&netns);
        if !details.netns.is_some_and(is_ours) {
            return Ok(());
        }
        self.shown.write(line)?;
        if let (Event::Outcome(outcome), Some(tid)) = (&line.event, subject.process.tid) {
            self.traced.add(tid, Outcome::clone(outcome));
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.shown.flush()
    }

    fn idle(&mut self, now: Timestamp) -> io::Result<Option<Duration>> {
        self.shown.idle(now)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.shown.finish()
    }
}
