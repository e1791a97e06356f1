//! Scenarios of the catalogue, each compared with the complete lines that it must produce.

use std::{
    env, fs,
    net::{IpAddr, SocketAddr},
    path::Path,
    process::{self, ExitCode},
    sync::Arc,
};

use conntrace_testnet::{
    FAR_ROUTER_V4, FAR_ROUTER_V6,
    catalogue::{self, ExpectedOutcome, LocalEnd, Scenario},
};
use conntrace_tests::{
    Live, binary, is_covered, is_list, is_root, kernel_version, live_test, mount_tracefs,
    own_cgroup, program_comm, remote_end, run, unless,
};
use jiff::Timestamp;
use serde_json::{Value, json};

/// Maximum number of times that a scenario is played.
const TRIES: usize = 3;
/// Fields that a busy machine may change: it sends a SYN again, or has no time to look for a cause.
const BY_LOAD: [&str; 3] = ["cause", "undiagnosed", "syn"];
/// Parts of the reasons for which a machine may lack what a scenario needs: a kernel too old, or
/// built without a feature.
const MISSING: [&str; 7] = [
    "no IPv6",
    "cannot make the device",
    "drops a packet",
    "tcp_syn_linear_timeouts",
    "No such file or directory",
    "Protocol not available",
    "not supported",
];
/// Fields that differ from one attempt to the next.
const UNFORESEEABLE: [&str; 6] = [
    "time",
    "started",
    "elapsed_us",
    "attempt_id",
    "message",
    "hostname",
];

pub(crate) fn main() -> ExitCode {
    // Some scenarios need tracefs, and are ignored with that reason if it is missing.
    let _ = mount_tracefs();
    let trial = |scenario: &'static Scenario| {
        let words = scenario.name.split(|c: char| !c.is_alphanumeric());
        let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
        let name = words.join("_").to_lowercase();
        let test = live_test(&name, move || holds(scenario));
        unless(lacks(scenario), test)
    };
    run(catalogue::all().map(trial).collect())
}

fn live() -> Arc<Live> {
    let has_tracefs = Path::new("/sys/kernel/tracing/events").exists();
    // Redundant where kernel functions are hooked.
    Live::with(if has_tracefs {
        &["--trace-syscalls"]
    } else {
        &[]
    })
}

/// Finds the reason for which this machine cannot stage or trace the scenario.
fn lacks(scenario: &Scenario) -> Option<String> {
    if !is_root() || is_list() {
        return None;
    }
    let _live = live();
    if let Some(key) = scenario.coverage.filter(|key| !is_covered(key)) {
        let reason = format!("needs {key} in `coverage`; `conntrace doctor` says why it is false");
        return Some(reason);
    }
    let prepared = conntrace_testnet::run("lacks", |testnet| {
        scenario.check(testnet)?;
        let prepared = scenario.prepare(testnet);
        prepared.map_err(|error| error.to_string())
    });
    let reason = prepared.expect("a test network").err()?;
    let is_known = MISSING.iter().any(|missing| reason.contains(missing));
    assert!(is_known, "{}: {reason}", scenario.name);
    Some(reason)
}

/// Checks that the scenario has its lines and no others. It is played again if they differ only in
/// what a busy machine may change.
fn holds(scenario: &Scenario) {
    for _ in 1..TRIES {
        let Err(difference) = differs(scenario) else {
            return;
        };
        eprintln!("{}: once more, for it {difference}", scenario.name);
    }
    differs(scenario).unwrap_or_else(|difference| panic!("{difference}"));
}

fn differs(scenario: &Scenario) -> Result<(), String> {
    let live = live();
    let count = scenario.expected.len();
    let began = format!("{:.9}", Timestamp::now());
    let played = live.play(|testnet| {
        let until_told = |_| {
            let tracer = live.tracer();
            tracer.wait_for_endings_since(&began, testnet.netns, count);
        };
        scenario.prepare(testnet).unwrap();
        scenario.play(binary(), &until_told).unwrap()
    });
    let lines = live.endings(&played, count);
    let mut stalled = 0;
    for (number, (line, outcome)) in lines.iter().zip(scenario.expected).enumerate() {
        let outcome = &as_on_this_kernel(scenario, *outcome, line);
        // After SYNs have crossed, the kernel retransmits the SYN-ACK, which is no stall.
        stalled += usize::from(outcome.syn_retransmitted > 0 && outcome.syn_sent == 2);
        let mut expected = json!({
            "schema": 1,
            "type": "outcome",
            "seen": "whole",
            "label": outcome.label,
            "errno": outcome.errno,
            "timeout_by": outcome.timeout_by,
            "syn": { "sent": outcome.syn_sent, "retransmitted": outcome.syn_retransmitted },
            "local": local(scenario, outcome, line),
            "remote": remote(scenario, outcome),
            "reply": reply(scenario, outcome),
            "cause": if number + 1 == count { cause(scenario, line) } else { Value::Null },
            "undiagnosed": null,
            "netns": played.netns,
            "process": caller(scenario, played.value, line),
            "container": null,
            "suppressed": 0,
        });
        for name in UNFORESEEABLE {
            expected[name] = line[name].clone();
        }
        let differing = expected.as_object().unwrap().iter();
        let mut differing = differing.filter(|(name, value)| line[name.as_str()] != **value);
        if *line != expected {
            let difference = format!("got {line:#}\nexpected {expected:#}");
            let is_load = differing.all(|(name, _)| BY_LOAD.contains(&name.as_str()));
            assert!(is_load, "{}: {difference}", scenario.name);
            return Err(difference);
        }
    }
    match live.stalls(&played).len() {
        stalls if stalls == stalled => Ok(()),
        0 => Err(format!("no stall of {stalled} in {}", played.netns)),
        stalls => Err(format!("has {stalls} stalls, and not {stalled}")),
    }
}

/// Adapts the expected outcome, because kernels count SYNs in different ways.
fn as_on_this_kernel(
    scenario: &Scenario,
    expected: ExpectedOutcome,
    line: &Value,
) -> ExpectedOutcome {
    // A SYN that waits for the neighbour's address is sometimes counted as retransmitted.
    let waits = (expected.label, expected.reply) == ("unreachable", "local");
    let again = u32::from(waits && line["syn"]["retransmitted"] == 1);
    // Linux 5.10 counts one more SYN-ACK where a socket connects to itself.
    let to_itself = expected.local == LocalEnd::Port(scenario.to.port());
    let more = u32::from(to_itself && kernel_version() < (6, 1));
    ExpectedOutcome {
        syn_sent: expected.syn_sent + again + more,
        syn_retransmitted: expected.syn_retransmitted + again,
        ..expected
    }
}

fn local(scenario: &Scenario, expected: &ExpectedOutcome, line: &Value) -> Value {
    let ephemeral = || {
        let port = line["local"]["port"].as_u64();
        port.filter(|port| (1..65_536).contains(port)).unwrap_or(0)
    };
    match expected.local {
        LocalEnd::Ephemeral => json!({ "addr": scenario.source(), "port": ephemeral() }),
        LocalEnd::Address(addr) => json!({ "addr": addr, "port": ephemeral() }),
        LocalEnd::Port(port) => json!({ "addr": scenario.source(), "port": port }),
        LocalEnd::NoPort => json!({ "addr": scenario.source(), "port": null }),
        LocalEnd::BindOnly => {
            let addr = Some(scenario.to.ip()).filter(|addr| !addr.is_unspecified());
            let port = Some(scenario.to.port()).filter(|port| *port != 0);
            json!({ "addr": addr, "port": port })
        }
    }
}

fn remote(scenario: &Scenario, expected: &ExpectedOutcome) -> Value {
    let port = expected.port.unwrap_or(scenario.to.port());
    let mut remote = remote_end(SocketAddr::new(scenario.to.ip(), port));
    if expected.local == LocalEnd::BindOnly {
        remote["addr"] = Value::Null;
        remote["port"] = Value::Null;
    }
    remote
}

fn reply(scenario: &Scenario, expected: &ExpectedOutcome) -> Value {
    let v6 = scenario.to.ip().to_canonical().is_ipv6();
    let icmp = expected.icmp.filter(|_| !v6 || is_covered("icmp6_detail"));
    let router = if v6 {
        IpAddr::from(FAR_ROUTER_V6)
    } else {
        FAR_ROUTER_V4.into()
    };
    let from = match (expected.reply, expected.local) {
        ("icmp", _) => Some(router),
        (_, LocalEnd::Address(addr)) => Some(addr),
        (_, _) => scenario.source(),
    };
    json!({
        "kind": expected.reply,
        "icmp_type": icmp.map(|(icmp_type, _)| icmp_type),
        "icmp_code": icmp.map(|(_, icmp_code)| icmp_code),
        "from": icmp.and(from),
    })
}

/// Returns the cause expected in the last line. The tests of causes check its text and evidence.
fn cause(scenario: &Scenario, line: &Value) -> Value {
    let expected = if is_covered("icmp6_detail") {
        scenario.cause
    } else {
        scenario.cause_by_errno
    };
    let told = &line["cause"];
    let or =
        |(code, certainty): &(&str, &str)| told["code"] == *code && told["certainty"] == *certainty;
    let Some((code, certainty)) = scenario.cause_or.filter(or).or(expected) else {
        return Value::Null;
    };
    json!({
        "code": code,
        "certainty": certainty,
        "why": told["why"],
        "fix": told["fix"],
        "evidence": told["evidence"],
    })
}

/// Returns the expected caller: a thread of this program, or the program that the scenario started.
fn caller(scenario: &Scenario, tid: u32, line: &Value) -> Value {
    let own = env::current_exe().unwrap();
    let (pid, comm, leader_comm, exe) = if line["process"]["pid"] == tid {
        let exe = fs::canonicalize(binary()).unwrap();
        (tid, "conntrace", "conntrace".to_owned(), exe)
    } else {
        (process::id(), scenario.name, program_comm(), own)
    };
    json!({
        "pid": pid,
        "tid": tid,
        "comm": comm,
        "leader_comm": leader_comm,
        "exe": exe,
        "uid": 0,
        "cgroup": own_cgroup(),
    })
}
