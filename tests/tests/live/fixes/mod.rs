//! Fixes of all causes that one machine can stage, followed as they are printed. Their commands run
//! in the host's network namespace, and the connect is repeated after them.

mod answers;
mod commands;
mod gateways;
mod policies;
mod ports;
mod silence;
mod ways;

use std::{
    any::Any,
    process::ExitCode,
    sync::{Arc, Mutex},
};

use conntrace::diagnosis::Code;
use conntrace_testnet::Testnet;
use conntrace_tests::{Live, lacks_tracefs, live_test, plain_test, role, run, unless};
use jiff::Timestamp;
use serde_json::Value;

/// Maximum number of plays of a scene, if a busy machine left no time to look for the cause.
const TRIES: usize = 3;

/// Resources that keep a cause in effect until its fix has been followed.
type HeldCause = Box<dyn Any>;

/// Cause that a scene stages, and the effect of its fix.
struct FixScene {
    code: Code,
    name: &'static str,
    fix: Fix,
    /// Returns the reason if this machine cannot stage the cause.
    lacks: fn() -> Option<String>,
    /// Number of attempts that the scene makes; the last one has the cause.
    endings: usize,
    act: fn(&Testnet) -> HeldCause,
}

/// Result of following a fix.
enum Fix {
    /// Connect succeeds after the fix. The function repeats it, and returns its errno or 0.
    Mends(fn(&str) -> i32),
    /// Each command of the fix prints evidence of the cause.
    Shows(&'static [Shown]),
    /// Step without a command, or on another machine, with the reason.
    Words(&'static str),
}

/// Text and exit status that a command must produce.
struct Shown {
    text: &'static str,
    status: i32,
}

/// Expects a command to succeed and to print this text.
const fn shows(text: &'static str) -> Shown {
    Shown { text, status: 0 }
}

const fn scene(
    code: Code,
    name: &'static str,
    fix: Fix,
    endings: usize,
    act: fn(&Testnet) -> HeldCause,
) -> FixScene {
    FixScene {
        code,
        name,
        fix,
        lacks: || commands::missing("ip").map(|program| format!("{program} is missing")),
        endings,
        act,
    }
}

impl FixScene {
    const fn unless(self, lacks: fn() -> Option<String>) -> Self {
        Self { lacks, ..self }
    }

    const fn with_nft(self) -> Self {
        self.unless(|| commands::missing("nft").map(|program| format!("{program} is missing")))
    }
}

/// Scenes of all groups.
const SCENES: [&[FixScene]; 6] = [
    answers::SCENES,
    gateways::SCENES,
    policies::SCENES,
    ports::SCENES,
    silence::SCENES,
    ways::SCENES,
];

fn scenes() -> impl Iterator<Item = &'static FixScene> {
    SCENES.into_iter().flatten()
}

/// Totals for the summary line at the end.
static DONE: Mutex<Done> = Mutex::new(Done {
    mended: 0,
    shown: 0,
    not_run: Vec::new(),
});

struct Done {
    mended: usize,
    shown: usize,
    not_run: Vec<String>,
}

fn not_run(scene: &FixScene, reason: &str) {
    let line = format!("{} ({}): {reason}", scene.code.as_str(), scene.name);
    let mut done = DONE.lock().unwrap();
    if !done.not_run.contains(&line) {
        done.not_run.push(line);
    }
}

pub(crate) fn main() -> ExitCode {
    if let Some(role) = role() {
        return policies::in_child(&role);
    }
    let tracefs = lacks_tracefs();
    let staged = scenes().map(|scene| {
        let lacks = tracefs.clone().or_else(scene.lacks);
        if let Some(reason) = &lacks {
            not_run(scene, reason);
        }
        unless(lacks, live_test(scene.name, move || follow(scene)))
    });
    let mut tests: Vec<_> = staged.collect();
    tests.push(plain_test("every_cause_has_a_scene", every_cause));
    tests.push(plain_test("commands", commands::tells_commands_apart));
    let code = run(tests);
    let Done {
        mended,
        shown,
        not_run,
    } = &mut *DONE.lock().unwrap();
    if *mended + *shown == 0 {
        return code;
    }
    not_run.sort();
    println!(
        "{} fixes run, {mended} mend, {shown} only show; not run:\n  {}",
        *mended + *shown,
        not_run.join("\n  ")
    );
    code
}

fn every_cause() {
    let unstaged: Vec<_> = Code::ALL
        .into_iter()
        .filter(|code| !scenes().any(|scene| scene.code == *code))
        .collect();
    assert_eq!(unstaged, []);
}

fn live() -> Arc<Live> {
    Live::with(&["--trace-syscalls"])
}

/// Plays the scene and follows its fix, with retries on a busy machine.
fn follow(scene: &FixScene) {
    for _ in 0..TRIES {
        if play(scene) {
            return;
        }
        eprintln!("there was no time to look for a cause: once more");
    }
    panic!("{}: no cause", scene.name);
}

/// Plays the scene once and follows its fix. Returns false if the line says that the cause was not
/// looked for.
fn play(scene: &FixScene) -> bool {
    let live = live();
    let began = format!("{:.9}", Timestamp::now());
    let again = matches!(scene.fix, Fix::Mends(_));
    let played = live.play(|testnet| {
        let held = (scene.act)(testnet);
        live.tracer()
            .wait_for_endings_since(&began, testnet.netns, scene.endings);
        let line = last_line(&live, testnet.netns, &began);
        let is_looked_for = !line["cause"].is_null() || line["undiagnosed"].is_null();
        if is_looked_for {
            assert_eq!(line["cause"]["code"], scene.code.as_str(), "{line:#}");
            try_fix(scene, &line);
        }
        drop(held);
        is_looked_for
    });
    let further = usize::from(played.value && again);
    live.endings(&played, scene.endings + further);
    played.value
}

fn last_line(live: &Live, netns: u32, began: &str) -> Value {
    let is_of = |line: &Value| {
        let since = line["started"].as_str().is_some_and(|it| it >= began);
        line["type"] == "outcome" && line["netns"] == netns && since
    };
    live.tracer().lines(is_of).pop().unwrap()
}

/// Runs the commands of the fix, and repeats the connect if they repair it.
fn try_fix(scene: &FixScene, line: &Value) {
    let fix = line["cause"]["fix"].as_str().unwrap();
    // A fix may be for another namespace than the client's.
    let evidence = &line["cause"]["evidence"];
    let netns = [&line["netns"], &evidence["netns"], &evidence["holder"]];
    let netns: Vec<_> = netns.into_iter().filter_map(Value::as_u64).collect();
    eprintln!("{} ({}): {fix}", scene.code.as_str(), scene.name);
    assert!(!fix.contains("(in network namespace"), "{fix}");
    let all = commands::of(fix);
    for quoted in &all {
        commands::assert_complete(&quoted.text);
    }
    let here: Vec<_> = all.iter().filter(|it| !it.is_elsewhere).collect();
    for quoted in &here {
        commands::assert_inside(&quoted.text, &netns);
    }
    match &scene.fix {
        Fix::Words(reason) => {
            assert!(here.is_empty(), "a command that could be run: {fix}");
            not_run(scene, reason);
        }
        Fix::Mends(again) => {
            for quoted in here {
                assert!(tried(scene, &quoted.text, None), "{fix}");
            }
            assert_eq!(again(fix), 0, "it does not mend: {fix}");
            DONE.lock().unwrap().mended += 1;
        }
        Fix::Shows(shown) => {
            assert_eq!(here.len(), shown.len(), "{fix}");
            let commands = here.iter().zip(*shown);
            let ran = commands.filter(|(quoted, shown)| tried(scene, &quoted.text, Some(shown)));
            let ran = ran.count();
            DONE.lock().unwrap().shown += usize::from(ran > 0);
        }
    }
}

/// Runs a command and checks its output. Returns false if its program is not installed.
fn tried(scene: &FixScene, command: &str, shown: Option<&Shown>) -> bool {
    if let Some(program) = commands::missing(command) {
        not_run(scene, &format!("{program} is missing"));
        return false;
    }
    let output = commands::run(command);
    let printed = String::from_utf8_lossy(&output.stdout);
    let status = shown.map_or(0, |shown| shown.status);
    assert_eq!(output.status.code(), Some(status), "{command}: {output:?}");
    if let Some(Shown { text, .. }) = shown {
        assert!(!printed.trim().is_empty(), "{command} prints nothing");
        assert!(
            printed.contains(text),
            "no {text:?} of {command}: {printed}"
        );
    }
    true
}
