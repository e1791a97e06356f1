//! Hosts that lack a feature. Tracing goes on without it or ends with one message and its exit
//! status. `doctor` reports the same.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, ExitCode, Output},
    sync::OnceLock,
};

use conntrace_testnet::{self, FAR_V4, ports};
use conntrace_tests::{
    Agent, Dir, LinesFile, TracerProcess, accounted, as_under_test, attempt, binary, check,
    copy_program, in_private_mounts, is_root, kernel_version, live_test, run_one_by_one, stderr,
    unless, without_tracefs,
};
use libtest_mimic::Trial;
use nix::{
    mount::{MsFlags, mount},
    sys::signal::Signal,
};
use serde_json::Value;

pub(crate) fn main() -> ExitCode {
    run_one_by_one(vec![
        live_test("btf_is_empty", btf_is_empty),
        live_test("btf_is_no_btf", btf_is_no_btf),
        live_test("no_btf", no_btf),
        live_test("no_sys", no_sys),
        live_test("no_tracefs", no_tracefs),
        live_test("no_bpffs", no_bpffs),
        live_test("no_proc", no_proc),
        uncounted("little_locked_memory", little_locked_memory),
        uncounted("no_sys_resource", no_sys_resource),
        counted("no_sys_resource_before_5_11", no_sys_resource_before_5_11),
        with_setpriv("no_bpf_capability", no_bpf_capability),
        with_setpriv("no_perfmon_capability", no_perfmon_capability),
        uncounted("two_capabilities", two_capabilities),
        uncounted("all_named_capabilities", all_named_capabilities),
        uncounted("hidden_processes", hidden_processes),
        unless(lacks_lockdown(), live_test("locked_down", locked_down)),
    ])
}

/// Returns the reason if this kernel lets programs read its memory.
fn lacks_lockdown() -> Option<&'static str> {
    let level = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    let locked = level.contains("[confidentiality]");
    (!locked).then_some("needs a kernel booted with lockdown=confidentiality")
}

fn locked_down() {
    assert_cannot_trace(&[], 4, "it is locked down (confidentiality)", "lockdown");
}

/// Returns true if this kernel counts BPF maps as locked memory.
fn counts_memory() -> bool {
    kernel_version() < (5, 11)
}

/// Declares a test of privileges that suffice where BPF maps are not locked memory.
fn uncounted(name: &str, test: impl Fn() + Send + 'static) -> Trial {
    let needs =
        counts_memory().then_some("needs Linux 5.11, from which BPF maps are no locked memory");
    unless(needs, with_setpriv(name, test))
}

/// Declares a test for a kernel that counts BPF maps as locked memory.
fn counted(name: &str, test: impl Fn() + Send + 'static) -> Trial {
    let needs = (!counts_memory())
        .then_some("needs a kernel before Linux 5.11, which counts BPF maps as locked memory");
    unless(needs, with_setpriv(name, test))
}

/// Declares a test that needs root and `setpriv` (util-linux).
fn with_setpriv(name: &str, test: impl Fn() + Send + 'static) -> Trial {
    let has_setpriv = || Command::new("setpriv").arg("--version").output().is_ok();
    let trial = live_test(name, test);
    if is_root() && !has_setpriv() {
        trial.with_kind("needs setpriv").with_ignored_flag(true)
    } else {
        trial
    }
}

/// Mounts a filesystem in the caller's private mount namespace.
fn mount_at(path: &str, kind: &str, options: Option<&str>) {
    mount(Some(kind), path, Some(kind), MsFlags::empty(), options).unwrap();
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}

/// Builds a command that runs `conntrace` with these arguments through a starter.
fn through(starter: &[&str], args: &[&str]) -> Command {
    let words = [starter, &[binary().to_str().unwrap()], args].concat();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    command
}

/// Runs `doctor`; returns its exit status and its JSON.
fn diagnosed(starter: &[&str]) -> (Option<i32>, Value) {
    let output = through(starter, &["doctor", "--format", "json"])
        .output()
        .unwrap();
    assert_eq!(stderr(&output), "");
    (
        output.status.code(),
        serde_json::from_slice(&output.stdout).unwrap(),
    )
}

/// Finds a fact by its name in the output of `doctor`.
fn fact<'a>(diagnosis: &'a Value, name: &str) -> &'a Value {
    let facts = diagnosis["facts"].as_array().unwrap();
    facts.iter().find(|fact| fact["name"] == name).unwrap()
}

/// Checks that tracing ends with one line on stderr and this exit status. `doctor` must end with
/// the same status and message, and name the fact that blocks.
fn assert_cannot_trace(starter: &[&str], status: i32, why: &str, blocks: &str) {
    let output: Output = through(starter, &[]).output().unwrap();
    let errors = stderr(&output);
    assert_eq!(
        (output.status.code(), text(&output.stdout)),
        (Some(status), ""),
        "{errors}"
    );
    assert_eq!(errors.lines().count(), 1, "{errors}");
    let message = errors.trim_end().strip_prefix("conntrace: ").unwrap();
    assert!(message.contains(why), "{message}");
    let (code, found) = diagnosed(starter);
    assert_eq!((code, &found["can_trace"]), (Some(status), &false.into()));
    assert_eq!(found["obstacle"]["message"], message);
    let fact = fact(&found, blocks);
    assert_eq!(fact["state"], "blocks", "{fact}");
    assert!(fact["remedy"].is_string(), "{fact}");
}

/// Traces one attempt; returns its line and the output of `doctor`, which agrees.
fn traced(starter: &[&str]) -> (Value, Value) {
    let dir = Dir::new("degraded");
    let file = LinesFile::new(&dir.0);
    let errors = conntrace_testnet::run("degraded", |testnet| {
        let netns = testnet.netns.to_string();
        let mut command = through(starter, &["--netns", &netns]);
        as_under_test(&mut command);
        let agent = Agent::spawn(command.stdout(File::create(file.path()).unwrap()));
        file.wait_for("\"type\":\"start\"", 1);
        attempt((FAR_V4, ports::RESETS));
        file.wait_for("\"type\":\"outcome\"", 1);
        agent.signal(Signal::SIGTERM);
        let (status, errors) = agent.wait();
        assert_eq!(status.code(), Some(0), "{errors}");
        errors
    })
    .unwrap();
    let lines = file.lines();
    let lines: Vec<_> = lines.lines().map(|line| check(line).unwrap()).collect();
    let stop = lines.last().unwrap();
    assert_eq!((&stop["attempts"], accounted(stop)), (&1.into(), 1));
    let of_type = |kind: &str| {
        lines
            .iter()
            .filter(|line| line["type"] == kind)
            .collect::<Vec<_>>()
    };
    let [outcome] = of_type("outcome")[..] else {
        unreachable!("{lines:#?}");
    };
    assert_eq!(
        (&outcome["label"], &outcome["seen"]),
        (&"refused".into(), &"whole".into())
    );
    assert_eq!(outcome["process"]["comm"], "degraded");
    assert_eq!(outcome["process"]["pid"], std::process::id());
    let expected = attached(usual_start(), may_probe(starter));
    assert_eq!(attached(&lines[0], true), expected);
    let (code, found) = diagnosed(starter);
    assert_eq!(
        (code, &found["can_trace"]),
        (Some(0), &true.into()),
        "{found:#}"
    );
    let limits = lines[0]["limits"].as_array().unwrap();
    for limit in limits {
        let fact = fact(&found, limit["name"].as_str().unwrap());
        assert_eq!(
            (&fact["state"], &fact["cost"]),
            (&"limits".into(), &limit["cost"])
        );
        let cost = limit["cost"].as_str().unwrap();
        assert!(errors.contains(cost), "{cost} in {errors}");
    }
    // Each limit has one warning, and this is the only other one.
    let warnings = usize::from(starter.contains(&WITHOUT_PROC));
    assert_eq!(errors.matches("no causes: ").count(), warnings, "{errors}");
    assert_eq!(errors.lines().count(), limits.len() + warnings, "{errors}");
    (outcome.clone(), found)
}

/// Lists the attached hooks of a start line, with or without probes of functions.
fn attached(start: &Value, probes: bool) -> Vec<&Value> {
    let hooks = start["hooks"].as_array().unwrap().iter();
    let is_probe = |hook: &Value| hook["kind"].as_str().unwrap().ends_with("probe");
    let attached = hooks.filter(|hook| hook["attached"] == true && (probes || !is_probe(hook)));
    attached.map(|hook| &hook["name"]).collect()
}

/// Returns this kernel's start line on a host where nothing is missing.
fn usual_start() -> &'static Value {
    static USUALLY: OnceLock<Value> = OnceLock::new();
    USUALLY.get_or_init(|| TracerProcess::start(&[]).stop().remove(0))
}

/// Returns true if kernel functions can be probed by such a user. Debian's kernels reserve that for
/// root by default, whatever the capabilities: their `perf_event_paranoid` knows 3.
fn may_probe(starter: &[&str]) -> bool {
    let paranoid = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").unwrap();
    !starter.contains(&"--reuid") || paranoid.trim().parse::<i32>().unwrap() < 3
}

/// Checks that the line has the caller's program and cgroup.
fn assert_names_caller(outcome: &Value) {
    let exe = std::env::current_exe().unwrap();
    assert_eq!(outcome["process"]["exe"], exe.to_str().unwrap());
    assert!(outcome["process"]["cgroup"].is_string());
}

/// Replaces the kernel's BTF by this content; tracing must fail.
fn btf_is(content: &[u8], why: &str) {
    let dir = Dir::new("btf");
    let file = dir.file("vmlinux");
    fs::write(&file, content).unwrap();
    in_private_mounts(|| {
        let (nothing, bind) = (None::<&str>, MsFlags::MS_BIND);
        mount(
            Some(&file),
            "/sys/kernel/btf/vmlinux",
            nothing,
            bind,
            nothing,
        )
        .unwrap();
        assert_cannot_trace(&[], 4, why, "kernel_members");
    });
}

fn btf_is_empty() {
    btf_is(b"", "/sys/kernel/btf/vmlinux");
}

fn btf_is_no_btf() {
    btf_is(&[0x55; 4096], "/sys/kernel/btf/vmlinux");
}

const NO_BTF: &str = "it has no /sys/kernel/btf/vmlinux";

fn no_btf() {
    in_private_mounts(|| {
        mount_at("/sys/kernel/btf", "tmpfs", None);
        assert_cannot_trace(&[], 4, NO_BTF, "kernel_btf");
    });
}

fn no_sys() {
    in_private_mounts(|| {
        mount_at("/sys", "tmpfs", None);
        assert_cannot_trace(&[], 4, NO_BTF, "kernel_btf");
    });
}

fn no_tracefs() {
    without_tracefs(|| assert_names_caller(&traced(&[]).0));
}

fn no_bpffs() {
    in_private_mounts(|| {
        mount_at("/sys/fs/bpf", "tmpfs", None);
        assert_names_caller(&traced(&[]).0);
    });
}

/// Shell command that runs another with an empty /proc.
const WITHOUT_PROC: &str = "mount -t tmpfs none /proc && exec \"$@\"";

/// Without /proc, processes are not identified and causes are not looked for.
fn no_proc() {
    let (outcome, found) = traced(&["unshare", "--mount", "sh", "-c", WITHOUT_PROC, "sh"]);
    assert!(outcome["process"]["exe"].is_null() && outcome["process"]["cgroup"].is_null());
    assert_eq!(fact(&found, "privilege")["state"], "unknown");
}

/// A small limit of locked memory suffices from Linux 5.11 on, which does not count BPF maps.
fn little_locked_memory() {
    let starter = ["sh", "-c", "ulimit -l 0 && exec \"$@\"", "sh"];
    assert_names_caller(&traced(&starter).0);
}

fn no_sys_resource() {
    let starter = ["setpriv", "--bounding-set", "-sys_resource"];
    assert_names_caller(&traced(&starter).0);
}

/// Without `CAP_SYS_RESOURCE` the limit cannot be raised, and the message names it.
fn no_sys_resource_before_5_11() {
    let without = ["setpriv", "--bounding-set", "-sys_resource"];
    let limited = ["sh", "-c", "ulimit -l 64 && exec \"$@\"", "sh"];
    let mut run = through(&[without.as_slice(), &limited].concat(), &[]);
    let output = run.output().unwrap();
    let errors = stderr(&output);
    assert_eq!(output.status.code(), Some(3), "{errors}");
    assert!(
        errors.contains("CAP_SYS_RESOURCE") && errors.lines().count() == 1,
        "{errors}"
    );
}

const NEEDS: &str = "tracing needs root, or the capabilities CAP_BPF and CAP_PERFMON";

fn no_bpf_capability() {
    let starter = ["setpriv", "--bounding-set", "-sys_admin,-bpf"];
    assert_cannot_trace(&starter, 3, NEEDS, "privilege");
}

fn no_perfmon_capability() {
    let starter = ["setpriv", "--bounding-set", "-sys_admin,-perfmon"];
    assert_cannot_trace(&starter, 3, NEEDS, "privilege");
}

/// Runs `act` with a copy of conntrace that any user may run, and a user with these capabilities.
fn as_nobody<T>(capabilities: &str, act: impl FnOnce(&[&str]) -> T) -> T {
    let dir = Dir::new("nobody");
    fs::set_permissions(&dir.0, fs::Permissions::from_mode(0o755)).unwrap();
    let copy = dir.file("conntrace");
    copy_program(binary(), &copy);
    let capabilities = ["--inh-caps", capabilities, "--ambient-caps", capabilities];
    let user = ["--reuid", "65534", "--regid", "65534", "--clear-groups"];
    let shell = [
        "sh",
        "-c",
        "shift; exec \"$0\" \"$@\"",
        copy.to_str().unwrap(),
    ];
    act(&[&["setpriv"], &user[..], &capabilities, &shell].concat())
}

fn two_capabilities() {
    as_nobody("+bpf,+perfmon", |starter| {
        let (outcome, found) = traced(starter);
        assert!(outcome["process"]["exe"].is_null() && outcome["process"]["cgroup"].is_null());
        for limit in ["cgroup_paths", "exe_of_others"] {
            assert_eq!(fact(&found, limit)["state"], "limits", "{limit}");
        }
    });
}

fn all_named_capabilities() {
    as_nobody("+bpf,+perfmon,+dac_read_search,+sys_ptrace", |starter| {
        assert_names_caller(&traced(starter).0);
    });
}

/// The mount option hidepid hides processes from a user without `CAP_SYS_PTRACE`.
fn hidden_processes() {
    in_private_mounts(|| {
        mount_at("/proc", "proc", Some("hidepid=invisible"));
        let (outcome, found) = traced(&[]);
        assert_names_caller(&outcome);
        assert_eq!(fact(&found, "proc")["state"], "ok");
        as_nobody("+bpf,+perfmon,+dac_read_search", |starter| {
            let (outcome, found) = traced(starter);
            assert!(outcome["process"]["exe"].is_null());
            assert_eq!(fact(&found, "proc")["state"], "limits");
        });
    });
    assert!(Path::new("/proc/1").exists());
}
