//! Commands around tracing: explanations, a diagnosis of the host, and the choice of printed lines.

use std::{
    collections::BTreeSet,
    env,
    fs::{self, File},
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode, Output},
};

use conntrace::{diagnosis::Code, record::Label};
use conntrace_testnet::{self, FAR_V4, ports};
use conntrace_tests::{
    Attempted, TracerProcess, assert_adds_up, attempt, binary, conntrace, copy_program, live_test,
    plain_test, run_one_by_one, tcp,
};
use serde_json::Value;

pub(crate) fn main() -> ExitCode {
    // Each of these tests traces the whole host, and so the attempts of the others.
    run_one_by_one(vec![
        plain_test("explain", explain),
        plain_test("explain_to_nobody", explain_to_nobody),
        live_test("doctor", doctor),
        live_test("doctor_without_privilege", doctor_without_privilege),
        live_test("doctor_without_btf", doctor_without_btf),
        live_test("hidden_labels", hidden_labels),
        live_test("label_decides_over_all", label_decides_over_all),
        live_test("stalls_have_no_label", stalls_have_no_label),
    ])
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Runs the command to its end.
fn output(args: &[&str]) -> Output {
    conntrace().args(args).output().unwrap()
}

fn explain() {
    let overview = output(&["explain"]);
    assert!(overview.status.success() && overview.stderr.is_empty());
    let labels = Label::ALL.map(Label::as_str);
    for name in labels.into_iter().chain(Code::ALL.map(Code::as_str)) {
        assert!(text(&overview.stdout).contains(name), "{name}");
        let output = output(&["explain", name]);
        assert!(output.status.success() && output.stderr.is_empty());
        let words = text(&output.stdout);
        assert!(words.starts_with(&format!("{name}: ")), "{words}");
        for part in ["Recognised by", "Classic reasons", "What to check and do"] {
            assert!(words.contains(part), "{part} in {words}");
        }
    }
    let refused = output(&["explain", "refused"]);
    assert!(text(&refused.stdout).contains("ss -ltnp"));
    for words in [
        &["ECONNREFUSED"][..],
        &["Connection", "refused"],
        &["REFUSED"],
    ] {
        assert_eq!(
            output(&[&["explain"], words].concat()).stdout,
            refused.stdout
        );
    }
    let several = output(&["explain", "EADDRNOTAVAIL"]);
    for label in ["port_exhausted: ", "address_unavailable: "] {
        assert!(text(&several.stdout).contains(label));
    }
}

/// `explain` succeeds on a closed stdout, and fails on a full disk.
fn explain_to_nobody() {
    for args in [&["explain"][..], &["explain", "refused"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = conntrace().args(args).stdout(writer).output().unwrap();
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = conntrace().args(args).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).starts_with("conntrace: cannot write the explanation: "));
    }
}

fn diagnosis(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Returns the option that makes `doctor` test the same tier as the tracer.
fn tier_under_test() -> Vec<String> {
    let tier = env::var("CONNTRACE_TIER").ok();
    tier.map_or_else(Vec::new, |tier| vec!["--tier".to_owned(), tier])
}

/// `doctor` agrees with the start line of tracing, and gives a reason and a remedy for everything
/// that is missing.
fn doctor() {
    let tier = tier_under_test();
    let tier: Vec<_> = tier.iter().map(String::as_str).collect();
    let output = output(&[&["doctor", "--format", "json"], &tier[..]].concat());
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
    let found = diagnosis(&output);
    let start = &TracerProcess::start(&[]).stop()[0];
    assert_eq!(found["can_trace"], true);
    assert!(found["obstacle"].is_null());
    for same in ["kernel", "tier", "version"] {
        assert_eq!(found[same], start[same]);
    }
    let hooks = found["hooks"].as_array().unwrap();
    assert_eq!(hooks.len(), start["hooks"].as_array().unwrap().len());
    for (hook, started) in hooks.iter().zip(start["hooks"].as_array().unwrap()) {
        for same in ["name", "attached", "reason"] {
            assert_eq!(hook[same], started[same]);
        }
    }
    let coverage = start["coverage"].as_object().unwrap();
    assert_eq!(found["coverage"].as_object().unwrap().len(), coverage.len());
    for (key, seen) in coverage {
        let found = &found["coverage"][key];
        assert_eq!(&found["seen"], seen, "{key}");
        for words in ["reason", "remedy"] {
            assert_eq!(found[words].is_null(), *seen == true, "{key}: {found}");
        }
    }
    let facts = found["facts"].as_array().unwrap();
    assert!(!facts.iter().any(|fact| fact["state"] == "blocks"));
    let attached = hooks.iter().filter(|hook| hook["attached"] == true).count();
    let verdict = format!(
        "\nTracing can start: {} tier; {attached} of {} hooks",
        found["tier"].as_str().unwrap(),
        hooks.len(),
    );
    let (_, said) = doctor_text(&[]);
    assert!(said.contains(&verdict), "{said}");
}

/// Runs `doctor` through these words; returns its exit status and text.
fn doctor_text(through: &[&str]) -> (Option<i32>, String) {
    let words = [through, &[binary().to_str().unwrap(), "doctor"]].concat();
    let (program, args) = words.split_first().unwrap();
    let mut doctor = Command::new(program);
    let output = doctor.args(args).args(tier_under_test()).output().unwrap();
    assert_eq!(text(&output.stderr), "", "{words:?}");
    let said = text(&output.stdout).to_owned();
    assert!(said.lines().count() <= 40, "{said}");
    assert!(
        said.lines().all(|line| line.chars().count() <= 80),
        "{said}"
    );
    (output.status.code(), said)
}

/// Facts that could not be tested are reported as unknown; the exit status is that of `run`.
fn doctor_without_privilege() {
    // An unprivileged user may have no access to the build directory.
    let copy = env::temp_dir().join(format!("conntrace-doctor-{}", std::process::id()));
    copy_program(binary(), &copy);
    let output = Command::new(&copy)
        .args(["doctor", "--format", "json"])
        .uid(65_534)
        .gid(65_534)
        .output()
        .unwrap();
    fs::remove_file(&copy).unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(3), ""));
    let found = diagnosis(&output);
    assert_eq!(found["can_trace"], false);
    assert_eq!(found["obstacle"]["kind"], "privilege");
    let fact = |name: &str| {
        let facts = found["facts"].as_array().unwrap();
        facts.iter().find(|fact| fact["name"] == name).unwrap()
    };
    assert_eq!(fact("privilege")["state"], "blocks");
    assert_eq!(fact("kernel_btf")["state"], "ok");
    assert_eq!(fact("kernel_members")["state"], "ok");
    assert_eq!(fact("exe_of_others")["state"], "limits");
    for hook in found["hooks"].as_array().unwrap() {
        assert!(hook["attached"].is_null(), "{hook}");
    }
    for (key, seen) in found["coverage"].as_object().unwrap() {
        assert!(seen["seen"].is_null(), "{key}");
    }
}

/// The kernel's BTF is hidden from the command.
fn doctor_without_btf() {
    let script = "mount -t tmpfs none /sys/kernel/btf && exec \"$@\"";
    let (code, text) = doctor_text(&["unshare", "--mount", "sh", "-c", script, "sh"]);
    assert_eq!(code, Some(4), "{text}");
    assert!(text.contains("\nTracing cannot start: kernel "), "{text}");
    let remedy = "remedy: a kernel built with CONFIG_DEBUG_INFO_BTF=y";
    assert!(text.contains(remedy), "{text}");
}

/// Makes a cancelled, an established and a refused attempt, in that order, under a tracer with
/// these options. Checks that all three are counted, and returns the labels printed.
fn printed(options: &[&str]) -> Vec<String> {
    let tracer = TracerProcess::start(options);
    let netns = conntrace_testnet::run("scenario", |testnet| {
        let silent = (FAR_V4, ports::SILENT).into();
        Attempted::begin(&tcp(silent), silent);
        attempt((FAR_V4, ports::ACCEPTS));
        attempt((FAR_V4, ports::RESETS));
        testnet.netns
    })
    .unwrap();
    let lines = tracer.stop();
    let totals = lines.last().unwrap();
    assert_adds_up(totals);
    for label in ["cancelled", "established", "refused"] {
        assert!(
            totals["outcomes"][label].as_u64().unwrap() >= 1,
            "{totals:#}"
        );
    }
    let ours = lines.iter().filter(|line| line["netns"] == netns);
    ours.map(|line| line["label"].as_str().unwrap().to_owned())
        .collect()
}

fn hidden_labels() {
    // The patience exceeds any pause of a busy machine, so that a cancelled attempt stays
    // cancelled.
    let patience = ["--patience", "10000"];
    let with = |labels: &[&str]| printed(&[&patience, labels].concat());
    assert_eq!(with(&["--label", "established"]), ["established"]);
    assert_eq!(with(&["--label", "cancelled"]), ["cancelled"]);
    assert_eq!(
        with(&["--label", "cancelled,refused", "--label", "established"]),
        ["cancelled", "established", "refused"]
    );
}

fn label_decides_over_all() {
    let options = ["--all", "--label", "refused", "--patience", "10000"];
    assert_eq!(printed(&options), ["refused"]);
}

fn stalls_have_no_label() {
    let stalled = |options: &[&str]| -> BTreeSet<String> {
        let tracer = TracerProcess::start(options);
        let netns = conntrace_testnet::run("scenario", |testnet| {
            attempt((FAR_V4, ports::ACCEPTS_SECOND_SYN));
            testnet.netns
        })
        .unwrap();
        let lines = tracer.stop();
        let ours = lines.iter().filter(|line| line["netns"] == netns);
        ours.map(|line: &Value| line["type"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(stalled(&["--label", "refused"]), ["stall".into()].into());
    assert!(stalled(&["--label", "refused", "--no-stalls"]).is_empty());
}
