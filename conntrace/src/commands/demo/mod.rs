//! `conntrace demo`: provokes every kind of ending for real, on a stage of its
//! own, and holds what was traced against what was expected.

mod audience;
mod narrator;
mod play;
mod report;
mod words;

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Write as _},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use anyhow::Context as _;
pub use conntrace_testnet::catalogue::client;
use conntrace_testnet::{Testnet, TestnetError, catalogue::ExpectedCause};
use tokio::sync::{mpsc::unbounded_channel, oneshot};

use audience::Audience;
use narrator::Narrator;
use play::DemoScene;
pub use report::DemoReport;

use crate::{
    capture::{self, Settings, Tier},
    output::{
        self, Destination, FormatArg, Json, Output,
        event::{Coverage, Outcome, Start},
        stderr,
    },
    pipeline::{self, Config, Labelling},
    record::Label,
};

/// The default of `--diagnosis-timeout`.
const DIAGNOSIS_TIMEOUT: Duration = Duration::from_secs(1);
/// The default of `--patience`, in milliseconds.
const PATIENCE_MS: u64 = 200;
/// Columns of what is told to a person.
const WIDTH: usize = 100;
/// Time for which a scene waits for its lines: the kernel may not trace an ending.
const LINES_MAX: Duration = Duration::from_secs(2);

/// Runs the whole demo, on this tier if one is given. Ends early when `interrupted` does.
/// In text, stdout has a block for each scene; in JSON, the lines of their attempts.
/// `None` when the reader of stdout has gone.
///
/// # Errors
/// When tracing or the stage cannot be set up, or stdout cannot be written.
pub async fn run(
    format: FormatArg,
    tier: Option<Tier>,
    interrupted: impl Future<Output = &'static str>,
) -> anyhow::Result<Option<DemoReport>> {
    let settings = Settings {
        report_established: true,
        trace_syscalls: capture::tracefs().is_some(),
        tier,
        ..Settings::default()
    };
    let (tracer, start) = capture::start(&settings)?;
    write(format, &narrator::announcement()).context("cannot write")?;
    let traced = TracedLines::default();
    let (failed, mut failures) = unbounded_channel();
    let (narrator, shown) = match format {
        FormatArg::Text => (Some(Narrator::new(traced.clone(), failed)), None),
        FormatArg::Json => (None, Some(Json::default())),
    };
    let audience = Audience {
        traced: traced.clone(),
        shown,
    };
    let stdout = Destination::stdout().context("cannot use stdout")?;
    let way = Output::queued(Box::new(audience), stdout);
    let played = begin(traced.clone(), start.coverage, narrator)?;
    let (mut scenes, mut unwritten) = (None, None);
    let stop = async {
        tokio::select! {
            result = played => {
                scenes = Some(result);
                "played"
            }
            Some(error) = failures.recv() => {
                unwritten = Some(error);
                "output failed"
            }
            reason = interrupted => reason,
        }
    };
    let totals = match pipeline::run(tracer, way, config(start), stop).await {
        Ok(totals) => totals,
        Err(error) if error.is_closed_output() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if let Some(error) = unwritten {
        unless_closed(Err(error)).context("cannot write")?;
        return Ok(None);
    }
    let scenes = scenes
        .context("interrupted")??
        .context("cannot set the stage")?;
    let missed = totals.lost.ending_missed;
    Ok(Some(DemoReport::new(
        &scenes,
        &traced.lock().outcomes,
        missed,
    )))
}

/// Writes what is told to a person: to stdout in text, beside JSON lines to stderr. That
/// nobody reads it any more is no error.
///
/// # Errors
/// When it cannot be written.
pub fn write(format: FormatArg, text: &str) -> io::Result<()> {
    unless_closed(match format {
        FormatArg::Text => io::stdout().write_all(text.as_bytes()),
        FormatArg::Json => {
            stderr::say(text);
            Ok(())
        }
    })
}

fn unless_closed(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if output::is_closed(&error) => Ok(()),
        Ok(()) | Err(_) => written,
    }
}

fn config(start: Start) -> Config {
    Config {
        start,
        labelling: Labelling {
            patience_ms: PATIENCE_MS,
            labels: Label::ALL.to_vec(),
            stalls: true,
            limit: None,
            causes: true,
            explained: true,
            taken_ports: true,
        },
        diagnosis_timeout: DIAGNOSIS_TIMEOUT,
        drops_privileges: false,
        summary_every: None,
        recorder: None,
        service: None,
    }
}

/// Plays the scenes in a thread of their own.
fn begin(
    traced: TracedLines,
    coverage: Coverage,
    narrator: Option<Narrator>,
) -> anyhow::Result<oneshot::Receiver<Result<Vec<DemoScene>, TestnetError>>> {
    let tell = move |scene: &DemoScene| {
        if let Some(narrator) = &narrator {
            narrator.tell(scene);
        }
    };
    let (played_sender, played) = oneshot::channel();
    thread::Builder::new()
        .name("demo".to_owned())
        .spawn(move || played_sender.send(play::play(&traced, coverage, &tell)))
        .context("cannot start the demo's thread")?;
    Ok(played)
}

/// Outcomes that were traced on the demo's stages, by calling thread.
#[derive(Debug, Clone, Default)]
struct TracedLines(Arc<(Mutex<TracedInner>, Condvar)>);

#[derive(Debug, Default)]
struct TracedInner {
    /// Each stage's namespace by its inode number, which no other namespace can
    /// get while it is held.
    stages: HashMap<u32, Option<File>>,
    outcomes: HashMap<u32, Vec<Outcome>>,
}

impl TracedLines {
    /// Must come before the first connect on that stage.
    fn add_stage(&self, testnet: &Testnet) {
        let namespace = File::open("/proc/thread-self/ns/net").ok();
        self.lock().stages.insert(testnet.netns, namespace);
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

    /// Asks for the namespace of a stage, by its inode number.
    fn is_stage(&self, netns: u32) -> bool {
        self.lock().stages.contains_key(&netns)
    }

    /// A thread's lines so far.
    fn lines(&self, tid: u32) -> Vec<Outcome> {
        self.lock().outcomes.get(&tid).cloned().unwrap_or_default()
    }

    /// The cause of a thread's last line.
    fn last_cause(&self, tid: u32) -> Option<ExpectedCause> {
        words::cause_of(self.lock().outcomes.get(&tid)?.last()?)
    }

    fn lock(&self) -> MutexGuard<'_, TracedInner> {
        let (inner, _) = &*self.0;
        inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, sync::Arc};

    use conntrace_testnet::catalogue;

    use crate::{
        diagnosis::{Cause, Certainty, Code, DiagnosisResult, Facts},
        output::event::{self, Outcome, Owner},
        record::{self, Label, label},
    };

    /// The line of a refused attempt with this cause.
    pub(super) fn told((code, certainty): (Code, Certainty)) -> Outcome {
        let attempt = record::decode(&record::decode::tests::refused()).unwrap();
        let verdict = label(&attempt, 200).unwrap();
        let cause = Cause::new(code, certainty, "why", "fix", Facts::default());
        let diagnosed = DiagnosisResult {
            cause: Some(Arc::new(cause.into())),
            undiagnosed: None,
            translated_to: None,
        };
        event::tests::outcome(&attempt, &verdict, Owner::default(), diagnosed)
    }

    /// The catalogue does not know the agent: its labels and causes are only words.
    #[test]
    fn the_catalogue_has_real_labels_and_causes() {
        let labels = Label::ALL.map(Label::as_str);
        let codes = Code::ALL.map(Code::as_str);
        let certainties = [Certainty::Certain, Certainty::Likely, Certainty::Possible];
        let certainties = certainties.map(Certainty::as_str);
        for scenario in catalogue::all() {
            let causes = [scenario.cause, scenario.cause_by_errno, scenario.cause_or];
            for (code, certainty) in causes.into_iter().flatten() {
                assert!(codes.contains(&code), "{code} of {scenario:#?}");
                assert!(
                    certainties.contains(&certainty),
                    "{certainty} of {scenario:#?}"
                );
            }
            for line in scenario.expected {
                assert!(labels.contains(&line.label), "{line:#?}");
            }
        }
    }

    #[test]
    fn every_cause_is_staged_that_one_host_can_stage() {
        let causes: HashSet<_> = catalogue::all()
            .filter_map(|scenario| Some(scenario.cause?.0))
            .collect();
        let missing: Vec<_> = Code::ALL
            .into_iter()
            .filter(|code| !causes.contains(code.as_str()))
            .collect();
        // The first needs a gateway behind another device than a tunnel's, such as the test
        // network has. For the next two a policy of the host's would have to be set, and be left
        // if killed. The fourth needs a namespace without an address, the fifth the rules of a
        // cluster, the last a gateway and a server with namespaces of their own.
        let elsewhere = [
            Code::PrivateAddressNotLocal,
            Code::CgroupPolicy,
            Code::SecurityModule,
            Code::NoSourceAddress,
            Code::ServiceWithoutEndpoints,
            Code::NotForwarded,
        ];
        assert_eq!(missing, elsewhere);
    }
}
