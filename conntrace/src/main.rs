//! Entry point: parses the command line, runs the command and sets the exit status.

use std::{fs::File, io, process::ExitCode, time::Duration};

use anyhow::Context as _;
use conntrace::{
    capture::{self, Settings, StartError, privileges},
    cli::{Cli, Command, DemoArgs, DoctorArgs, ExplainArgs, ReplayArgs, RunArgs},
    commands::{demo, doctor, explain},
    output::{self, Destination, FormatArg, Output, Progress, event, stderr},
    pipeline::{
        self, Config,
        replay::{self, ReplayError},
        service::Service,
    },
    record::Label,
    recording::Recorder,
};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Exit status of a runtime failure.
const EXIT_FAILURE: u8 = 1;
/// Exit status of wrong usage, the same as clap's.
const EXIT_USAGE: u8 = 2;
/// Exit status if capabilities are missing.
const EXIT_PRIVILEGE: u8 = 3;
/// Exit status if the kernel cannot support tracing.
const EXIT_KERNEL: u8 = 4;

fn main() -> ExitCode {
    match run(Cli::read()) {
        Ok(code) => code,
        Err(error) => {
            stderr::say(&format!("conntrace: {error:#}\n"));
            exit_code(&error)
        }
    }
}

/// Maps an error to an exit status. A closed stdout is handled before, as a clean stop.
fn exit_code(error: &anyhow::Error) -> ExitCode {
    error
        .downcast_ref()
        .map_or(ExitCode::from(EXIT_FAILURE), start_exit_code)
}

fn start_exit_code(error: &StartError) -> ExitCode {
    ExitCode::from(match error {
        StartError::Privilege(_) => EXIT_PRIVILEGE,
        StartError::Unsupported { .. } => EXIT_KERNEL,
        StartError::Failed { .. } => EXIT_FAILURE,
    })
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Some(Command::Schema) => print_schema(),
        Some(Command::Doctor(args)) => runtime()?.block_on(async { examine(&args) }),
        Some(Command::Explain(args)) => print_explanation(&args),
        Some(Command::Replay(args)) => run_replay(&args),
        Some(Command::Demo(args)) => runtime()?.block_on(run_demo(&args)),
        Some(Command::Run(args)) => runtime()?.block_on(trace(&args)),
        None => runtime()?.block_on(trace(&cli.run)),
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")
}

async fn trace(args: &RunArgs) -> anyhow::Result<ExitCode> {
    start_log(args.verbose);
    let stop = stop_signal()?;
    let hangup = listen(SignalKind::hangup())?;
    // Exceeding RLIMIT_FSIZE is handled like a full disk.
    let _too_large = listen(SignalKind::from_raw(libc::SIGXFSZ))?;
    let settings = Settings {
        report_established: args.lines.labels().contains(&Label::Established),
        count_connects: !args.lines.no_diagnosis,
        debug: args.verbose > 1,
        trace_syscalls: args.trace_syscalls,
        tier: args.tier.tier,
        filter: args.filter.filter(),
        object: args.object.clone(),
    };
    let (tracer, mut start) = capture::start(&settings)?;
    start.limits = doctor::limits();
    for limit in &start.limits {
        log::warn!("{limit}");
    }
    // Created after a successful start: a failed one leaves no file behind.
    let recorder = args.record.as_deref().map(Recorder::create).transpose()?;
    let destination = match &args.output {
        Some(path) => Destination::file(path)?,
        None => Destination::stdout().context("cannot use stdout")?,
    };
    // Before lasting threads start: each thread has its own capabilities.
    privileges::give_up_rest(!args.lines.no_diagnosis)?;
    let service = Service::from_env();
    let config = Config {
        start,
        labelling: args.lines.labelling(),
        diagnosis_timeout: Duration::from_millis(args.diagnosis_timeout),
        summary_every: args.summary_every(),
        drops_privileges: true,
        recorder,
        service,
    };
    if let Err(error) = destination.check_reopening() {
        log::warn!("{error}");
    }
    let (output, writer) = Output::queued(args.renderer(), destination);
    tokio::spawn(reopen_at(hangup, writer.progress()));
    match pipeline::run(tracer, (output, writer), config, stop).await {
        Ok(_) => Ok(ExitCode::SUCCESS),
        Err(error) if error.is_closed_output() => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error.into()),
    }
}

/// Reopens the output file at SIGHUP, as sent after a log rotation.
async fn reopen_at(mut hangup: Signal, output: Progress) {
    while hangup.recv().await.is_some() {
        output.reopen();
    }
}

async fn run_demo(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    if let Some(to) = args.connects_to {
        demo::client(to)?;
        return Ok(ExitCode::SUCCESS);
    }
    start_log(0);
    let Some(report) = demo::run(args.format, args.tier.tier, stop_signal()?).await? else {
        return Ok(ExitCode::SUCCESS);
    };
    demo::write(args.format, &report.to_string()).context("cannot write the report")?;
    if report.all_as_expected() {
        Ok(ExitCode::SUCCESS)
    } else {
        Ok(ExitCode::from(EXIT_FAILURE))
    }
}

fn run_replay(args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    start_log(0);
    let name = args.file.display();
    let file = File::open(&args.file).with_context(|| format!("cannot open {name}"))?;
    let output = Output::direct(args.lines.renderer(), io::stdout());
    match replay::run(file, output, args.lines.labelling()) {
        Ok(()) | Err(ReplayError::OutputClosed) => Ok(ExitCode::SUCCESS),
        Err(ReplayError::Output(error)) => Err(error).context("cannot write lines"),
        Err(ReplayError::Recording(error)) => Err(error).context(format!("cannot replay {name}")),
    }
}

/// Listens for SIGINT and SIGTERM; called first, so that no signal is missed.
fn stop_signal() -> anyhow::Result<impl Future<Output = &'static str>> {
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
        }
    })
}

fn listen(kind: SignalKind) -> anyhow::Result<Signal> {
    signal(kind).context("cannot listen for signals")
}

fn start_log(verbose: u8) {
    use log::LevelFilter;

    let (level, of_aya) = match verbose {
        // Our own messages cover aya's warnings.
        0 => (LevelFilter::Warn, LevelFilter::Error),
        // Its debug level logs hundreds of relocations.
        1 => (LevelFilter::Info, LevelFilter::Info),
        _ => (LevelFilter::Debug, LevelFilter::Info),
    };
    env_logger::Builder::new()
        .filter_level(level)
        .filter_module("aya", of_aya)
        .filter_module("aya_obj", of_aya)
        .target(env_logger::Target::Pipe(Box::new(stderr::Log)))
        .init();
}

fn print_schema() -> anyhow::Result<ExitCode> {
    let schema = serde_json::to_string_pretty(&event::json_schema())?;
    print(&format!("{schema}\n")).context("cannot write the schema")?;
    Ok(ExitCode::SUCCESS)
}

/// Runs `doctor`. The exit status is that of a failed start of `run`, for scripts.
fn examine(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    start_log(0);
    let (report, tried) = doctor::examine(args.tier.tier);
    let text = match args.format {
        FormatArg::Text => doctor::text(&report),
        FormatArg::Json => doctor::json(&report)?,
    };
    print(&text).context("cannot write the report")?;
    Ok(tried.map_or_else(|error| start_exit_code(&error), |()| ExitCode::SUCCESS))
}

fn print_explanation(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let typed = args.words.join(" ");
    let text = if args.words.is_empty() {
        explain::overview()
    } else {
        match explain::answer(&typed) {
            Ok(text) => text,
            Err(unknown) => {
                stderr::say(&format!("error: {unknown}"));
                return Ok(ExitCode::from(EXIT_USAGE));
            }
        }
    };
    print(&text).context("cannot write the explanation")?;
    Ok(ExitCode::SUCCESS)
}

/// Prints to stdout; a closed stdout is not an error.
fn print(text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if !output::is_closed(&error) => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
