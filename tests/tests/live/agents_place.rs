//! conntrace in a container of its own, by runc: `container` and `exe` are right, or `start` and
//! `doctor` say why they are null.

use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    path::Path,
    process::{Command, ExitCode},
};

use conntrace_testnet::{self, FAR_V4, ports};
use conntrace_tests::{
    Agent, Cgroup, Dir, LinesFile, Partner, as_under_test, attempt, binary, checked, conntrace,
    in_role_to, live_test, of_type, remote_of_role, role, run_one_by_one, say_and_wait, stderr,
    unless_all,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// Environment variable with the cgroup that a child moves to.
const CGROUP: &str = "CONNTRACE_TEST_CGROUP";
/// Capabilities of a privileged container that conntrace uses.
const CAPABILITIES: [&str; 6] = [
    "CAP_BPF",
    "CAP_DAC_READ_SEARCH",
    "CAP_NET_ADMIN",
    "CAP_PERFMON",
    "CAP_SYS_ADMIN",
    "CAP_SYS_PTRACE",
];
/// Place of the cgroup filesystem in the container.
const CGROUPFS: &str = "/cgroup";
/// Words of `doctor` where a mount of a part of the hierarchy led to the root.
const THROUGH_PART: &str = "reached through the mount of a part";

pub(crate) fn main() -> ExitCode {
    if role().is_some() {
        connect_in_cgroup();
        return ExitCode::SUCCESS;
    }
    let tests: [(&str, fn()); 10] = [
        ("own_cgroups_host_pids", own_cgroups_host_pids),
        ("own_cgroups_own_pids", own_cgroups_own_pids),
        ("host_cgroups_host_pids", host_cgroups_host_pids),
        ("host_cgroups_own_pids", host_cgroups_own_pids),
        ("bound_cgroups", bound_cgroups),
        ("bound_proc", bound_proc),
        ("proc_of_processes_only", proc_of_processes_only),
        ("part_without_privilege", part_without_privilege),
        ("no_cgroupfs", no_cgroupfs),
        ("no_ptrace", no_ptrace),
    ];
    let tests = tests.map(|(name, test)| live_test(name, test));
    run_one_by_one(unless_all(lacks_runc(), tests.into()))
}

/// Returns the missing requirement if containers cannot be run here.
fn lacks_runc() -> Option<&'static str> {
    let has_runc = Command::new("runc").arg("--version").output().is_ok();
    Cgroup::lacks().or((!has_runc).then_some("needs runc"))
}

/// Plays the child: it connects from the cgroup, and lives until its line is read.
fn connect_in_cgroup() {
    let cgroup = std::env::var_os(CGROUP).unwrap();
    fs::write(Path::new(&cgroup).join("cgroup.procs"), "0").unwrap();
    attempt(remote_of_role());
    say_and_wait("done");
}

/// Cgroup filesystem of a container.
enum Cgroupfs {
    /// Mounted by the container: its own part, if it has a cgroup namespace.
    Own,
    /// The host's, bound into the container.
    Host,
    None,
}

/// Container of the agent.
struct Place {
    own_cgroups: bool,
    own_pids: bool,
    cgroupfs: Cgroupfs,
    proc: Value,
    /// Capability that it lacks.
    without: &'static str,
}

impl Default for Place {
    /// A pod's container: namespaces of its own, with the capabilities that conntrace uses.
    fn default() -> Self {
        Self {
            own_cgroups: true,
            own_pids: true,
            cgroupfs: Cgroupfs::Own,
            proc: json!({ "destination": "/proc", "type": "proc", "source": "proc" }),
            without: "",
        }
    }
}

impl Place {
    /// Returns a command that runs conntrace with these arguments in the container.
    fn run(&self, dir: &Dir, arguments: &[&str]) -> Command {
        let mut wanted = conntrace();
        wanted.args(arguments);
        if arguments[0] == "run" {
            as_under_test(&mut wanted);
        }
        let mut words = vec!["/conntrace".to_owned()];
        words.extend(
            wanted
                .get_args()
                .map(|arg| arg.to_str().unwrap().to_owned()),
        );
        let root = dir.file("root");
        fs::create_dir_all(&root).unwrap();
        let kept = CAPABILITIES.iter().filter(|it| **it != self.without);
        let kept: Vec<_> = kept.collect();
        let id = format!("conntrace-place-{}", std::process::id());
        let config = json!({
            "ociVersion": "1.0.2",
            "root": { "path": root },
            "process": {
                "args": words,
                "cwd": "/",
                "user": { "uid": 0, "gid": 0 },
                "capabilities": { "bounding": kept, "effective": kept, "permitted": kept },
            },
            "mounts": self.mounts(&root),
            "linux": { "namespaces": self.namespaces(), "cgroupsPath": format!("/{id}") },
        });
        fs::write(dir.file("config.json"), config.to_string()).unwrap();
        let mut runc = Command::new("runc");
        runc.arg("--root").arg(dir.file("state"));
        runc.args(["run", "--bundle"]).arg(&dir.0).arg(id);
        runc
    }

    fn namespaces(&self) -> Vec<Value> {
        let own = [("cgroup", self.own_cgroups), ("pid", self.own_pids)];
        let own = own
            .into_iter()
            .filter_map(|(kind, is_own)| is_own.then_some(kind));
        own.chain(["mount"])
            .map(|kind| json!({ "type": kind }))
            .collect()
    }

    fn mounts(&self, root: &Path) -> Vec<Value> {
        let mut mounts = vec![
            self.proc.clone(),
            bind(Path::new("/sys"), "/sys"),
            bind(binary(), "/conntrace"),
        ];
        // What the dynamic linker needs; a folder may be a link to another.
        for folder in ["usr", "lib", "lib64"] {
            let (host, inside) = (Path::new("/").join(folder), root.join(folder));
            match fs::read_link(&host) {
                Ok(to) => {
                    let _ = symlink(to, inside);
                }
                Err(_) if host.is_dir() => mounts.push(bind(&host, host.to_str().unwrap())),
                Err(_) => {}
            }
        }
        if let Some(object) = std::env::var_os("CONNTRACE_OBJECT") {
            mounts.push(bind(object.as_ref(), object.to_str().unwrap()));
        }
        match self.cgroupfs {
            Cgroupfs::Own => mounts.push(json!({
                "destination": CGROUPFS, "type": "cgroup2", "source": "cgroup2", "options": ["ro"],
            })),
            Cgroupfs::Host => mounts.push(bind(&Cgroup::root_path(), CGROUPFS)),
            Cgroupfs::None => {}
        }
        mounts
    }

    /// Traces an attempt from another container. Checks that the line has a right `container` and
    /// `exe`, or null, and that `start` and stderr have these limits. Returns `doctor`'s report.
    fn traced(&self, has_container: bool, has_exe: bool, limits: &[&str]) -> Value {
        let dir = Dir::new("place");
        let file = LinesFile::new(&dir.0);
        let id = format!("{:064x}", std::process::id());
        let cgroup = Cgroup::new(format!("docker-{id}.scope"));
        let remote = (FAR_V4, ports::RESETS).into();
        let pid = conntrace_testnet::run("place", |testnet| {
            let netns = testnet.netns.to_string();
            let mut command = self.run(&dir, &["run", "--netns", &netns]);
            let agent = Agent::spawn(command.stdout(File::create(file.path()).unwrap()));
            file.wait_for("\"type\":\"start\"", 1);
            let mut caller = in_role_to("connect", remote);
            caller.env(CGROUP, cgroup.path());
            let caller = Partner::start(caller);
            file.wait_for("\"type\":\"outcome\"", 1);
            let pid = caller.pid();
            assert!(caller.finish().success());
            agent.signal(Signal::SIGTERM);
            let (status, errors) = agent.wait();
            assert_eq!(status.code(), Some(0), "{errors}");
            for limit in limits {
                let warning = format!("{limit}: ");
                assert_eq!(errors.matches(&warning).count(), 1, "{errors}");
            }
            pid
        })
        .unwrap();
        let lines = checked(&file.lines());
        let start = of_type(&lines, "start").next().unwrap();
        assert_eq!(names(&start["limits"]), limits, "{start:#}");
        let outcome = of_type(&lines, "outcome").next().unwrap();
        let process = &outcome["process"];
        assert_eq!(process["pid"], pid, "{outcome:#}");
        let own = std::env::current_exe().unwrap();
        let exe = has_exe.then(|| own.to_str().unwrap());
        assert_eq!(process["exe"].as_str(), exe, "{outcome:#}");
        if has_container {
            assert_eq!(outcome["container"]["id"], id, "{outcome:#}");
            assert_eq!(process["cgroup"], format!("/docker-{id}.scope"));
        } else {
            assert!(outcome["container"].is_null(), "{outcome:#}");
            assert!(process["cgroup"].is_null(), "{outcome:#}");
        }
        self.examined(&dir, limits)
    }

    /// Runs `doctor`, which must report the same limits, each with its cost and remedy.
    fn examined(&self, dir: &Dir, limits: &[&str]) -> Value {
        let output = self
            .run(dir, &["doctor", "--format", "json"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let facts = report["facts"].as_array().unwrap().iter();
        // These depend on the host, not on the place.
        let of_host = |fact: &&Value| fact["name"] == "tracefs" || fact["name"] == "cgroup_v1";
        let limited = facts.filter(|fact| fact["state"] == "limits" && !of_host(fact));
        let limited: Vec<_> = limited.cloned().collect();
        for fact in &limited {
            assert!(fact["cost"].is_string() && fact["remedy"].is_string());
        }
        assert_eq!(names(&limited.into()), limits, "{report:#}");
        report
    }
}

/// Returns the mount of one of the host's files or folders, without what is mounted below it.
fn bind(host: &Path, inside: &str) -> Value {
    json!({ "destination": inside, "type": "bind", "source": host, "options": ["bind", "ro"] })
}

fn names(list: &Value) -> Vec<&str> {
    let list = list.as_array().unwrap().iter();
    list.map(|it| it["name"].as_str().unwrap()).collect()
}

/// Returns the text that `doctor` found by this check.
fn found<'a>(report: &'a Value, name: &str) -> &'a str {
    let mut facts = report["facts"].as_array().unwrap().iter();
    let fact = facts.find(|fact| fact["name"] == name).unwrap();
    fact["found"].as_str().unwrap()
}

/// A pod with `hostPID`: the mount shows its own part, through which the root is reached.
fn own_cgroups_host_pids() {
    let place = Place {
        own_pids: false,
        ..Place::default()
    };
    let report = place.traced(true, true, &[]);
    assert_eq!(found(&report, "cgroup_v2"), THROUGH_PART);
}

/// A pod without `hostPID`: nothing is read by pid, because pids there are other processes'.
fn own_cgroups_own_pids() {
    let report = Place::default().traced(true, false, &["pid_namespace"]);
    assert_eq!(found(&report, "cgroup_v2"), THROUGH_PART);
}

fn host_cgroups_host_pids() {
    let place = Place {
        own_cgroups: false,
        own_pids: false,
        cgroupfs: Cgroupfs::Host,
        ..Place::default()
    };
    let report = place.traced(true, true, &[]);
    assert_eq!(found(&report, "cgroup_v2"), CGROUPFS);
}

fn host_cgroups_own_pids() {
    let place = Place {
        own_cgroups: false,
        cgroupfs: Cgroupfs::Host,
        ..Place::default()
    };
    place.traced(true, false, &["pid_namespace"]);
}

/// The host's filesystem shows the root also from a private cgroup namespace.
fn bound_cgroups() {
    let place = Place {
        cgroupfs: Cgroupfs::Host,
        ..Place::default()
    };
    let report = place.traced(true, false, &["pid_namespace"]);
    assert_eq!(found(&report, "cgroup_v2"), CGROUPFS);
}

/// The host's /proc has the host's pids, whatever the agent's own pid namespace.
fn bound_proc() {
    let place = Place {
        proc: bind(Path::new("/proc"), "/proc"),
        ..Place::default()
    };
    place.traced(true, true, &[]);
}

fn proc_of_processes_only() {
    let place = Place {
        own_pids: false,
        proc: json!({
            "destination": "/proc", "type": "proc", "source": "proc", "options": ["subset=pid"],
        }),
        ..Place::default()
    };
    place.traced(true, true, &["proc"]);
}

/// Without `CAP_SYS_ADMIN` the part cannot be left.
fn part_without_privilege() {
    let place = Place {
        own_pids: false,
        without: "CAP_SYS_ADMIN",
        ..Place::default()
    };
    place.traced(false, true, &["cgroup_v2"]);
}

fn no_cgroupfs() {
    let place = Place {
        own_pids: false,
        cgroupfs: Cgroupfs::None,
        ..Place::default()
    };
    place.traced(false, true, &["cgroup_v2"]);
}

/// The caller has other capabilities than the agent, which may then not inspect it.
fn no_ptrace() {
    let place = Place {
        own_pids: false,
        without: "CAP_SYS_PTRACE",
        ..Place::default()
    };
    place.traced(true, false, &["exe_of_others"]);
}
