//! Processes that hold their entries in /proc shut: exec keeps `exec_update_lock` while it closes a
//! file, and the file's filesystem never answers.

use std::{
    collections::HashSet,
    env,
    fs::File,
    net::Ipv4Addr,
    os::unix::process::CommandExt as _,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use conntrace_tests::{
    Agent, Attempted, Dir, HeldFile, LinesFile, Partner, Task, at_rate, attempt,
    enter_own_namespaces, in_role_again, ip, make_fuse_device, number, of_type, say_and_wait,
    tasks, tcp,
};
use nix::sys::{prctl::set_pdeathsig, signal::Signal};
use serde_json::Value;

use super::{
    ClosedPort, LINES_MAX, POLL, USER, assert_nothing_listening, assert_refused, outcomes, stop,
    wait_for_outcomes,
};

/// Environment variables with the folder of the device and the mount, the number of processes to
/// hold, and the process to look at.
const DIR: &str = "CONNTRACE_TEST_HELD_DIR";
const COUNT: &str = "CONNTRACE_TEST_HELD";
const PID: &str = "CONNTRACE_TEST_PID";
/// Address in the holder's namespace from which nothing is heard.
const SILENT: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 7, 0, 9), 8088);
/// Time after which the attempts of held processes fail.
const USER_TIMEOUT: Duration = Duration::from_secs(1);
/// Number of others' refused attempts, in all and a second.
const OTHERS: u32 = 20_000;
const OTHERS_PER_SECOND: u32 = 5000;
/// Number of processes that are held at once, and of refused attempts of others meanwhile.
const MANY: usize = 20;
const OTHERS_OF_MANY: usize = 2000;
/// Number of lines of others that may lack their cause or program: the first ones of a case, if the
/// machine is busy.
const UNKNOWN_MAX: usize = 10;
/// Name of the agent's threads that look at the host, and their number.
const LOOK: &str = "conntrace-look";
const LOOKS: usize = 3;
/// Number of attempts after the holder is gone.
const AFTER: usize = 5;
/// Port without a listener in the namespace of a later process.
const AFTER_PORT: u16 = 4323;
/// Time after which a read that should last milliseconds is taken for one that hangs.
const HANGS: Duration = Duration::from_millis(500);

/// Holds processes shut, as the child process, until it may end.
pub(super) fn hold() {
    enter_own_namespaces();
    ip("addr add 10.8.0.1/32 dev lo");
    ip("route add 10.7.0.0/24 dev lo src 10.8.0.1");
    let dir = env::var(DIR).unwrap();
    let file = HeldFile::mount(
        &Path::new(&dir).join("device"),
        &Path::new(&dir).join("mount"),
    );
    let count = env::var(COUNT).unwrap().parse().unwrap();
    let held = (0..count).map(|_| {
        let child = in_role_again("be_held").spawn().unwrap();
        file.wait_for_closing();
        child
    });
    let mut held: Vec<_> = held.collect();
    let pids: Vec<_> = held.iter().map(|child| child.id().to_string()).collect();
    say_and_wait(&pids.join(" "));
    file.answer();
    for child in &mut held {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// Begins an attempt that fails a second later, and executes another program, in which it hangs.
pub(super) fn be_held() {
    set_pdeathsig(Signal::SIGKILL).unwrap();
    let _file = HeldFile::open(&Path::new(&env::var(DIR).unwrap()).join("mount"));
    let remote = SILENT.into();
    let socket = tcp(remote);
    // Or it is closed before it has failed.
    socket.set_cloexec(false).unwrap();
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT)).unwrap();
    Attempted::begin(&socket, remote);
    panic!("{}", Command::new("sleep").arg("1000").exec());
}

/// Opens what a held process keeps shut.
pub(super) fn open_environ() {
    let pid = env::var(PID).unwrap();
    File::open(format!("/proc/{pid}/environ")).unwrap();
}

/// Makes attempts that are refused, in namespaces of its own.
pub(super) fn be_refused() {
    enter_own_namespaces();
    for _ in 0..AFTER {
        attempt((Ipv4Addr::LOCALHOST, AFTER_PORT));
    }
    say_and_wait("refused");
}

/// Folder of a holder's device and mount.
struct Stage(Dir);

impl Stage {
    fn new() -> Self {
        let dir = Dir::new("held");
        make_fuse_device(&dir.file("device"));
        std::fs::create_dir(dir.file("mount")).unwrap();
        Self(dir)
    }

    /// Starts a user that holds so many processes shut.
    fn hold(&self, count: usize) -> Partner {
        let mut command = in_role_again("hold");
        command.uid(USER).gid(USER);
        command.env(DIR, &self.0.0).env(COUNT, count.to_string());
        let holder = Partner::start(command);
        for pid in holder.said.split(' ') {
            assert!(is_shut(pid), "process {pid} is not held");
        }
        assert_eq!(holder.said.split(' ').count(), count);
        holder
    }

    fn run(&self, ports: &[u16]) -> (LinesFile, Agent) {
        let file = LinesFile::new(&self.0.0);
        let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
        let filter = ports.iter().flat_map(|port| ["--port", port]);
        let options: Vec<_> = filter.chain(["--no-stalls", "--summary", "1"]).collect();
        let agent = file.run(&options);
        (file, agent)
    }
}

/// Returns true if opening a file of this process hangs.
fn is_shut(pid: &str) -> bool {
    let mut child = in_role_again("open").env(PID, pid).spawn().unwrap();
    thread::sleep(HANGS);
    let hangs = child.try_wait().unwrap().is_none();
    child.kill().unwrap();
    child.wait().unwrap();
    hangs
}

fn looks(agent: &Agent) -> Vec<Task> {
    let tasks = tasks(agent.pid()).into_iter();
    tasks.filter(|task| task.comm == LOOK).collect()
}

/// Returns the agent's threads that hang now. Fails for one that is there for something else than
/// looks.
fn hanging(agent: &Agent) -> HashSet<Task> {
    let waiting = || -> HashSet<_> {
        let tasks = tasks(agent.pid()).into_iter();
        tasks.filter(|task| task.state == 'D').collect()
    };
    let before = waiting();
    thread::sleep(HANGS);
    let hanging: HashSet<_> = &before & &waiting();
    for task in &hanging {
        assert_eq!(task.comm, LOOK, "only threads that look may hang");
    }
    hanging
}

/// Checks the lines of held processes, and that abandoned threads were counted if and only if one
/// was seen to hang.
fn assert_held(lines: &[Value], held: usize, hung: usize, errors: &str) {
    let of_held = outcomes(lines, SILENT.1);
    assert_eq!(of_held.len(), held);
    for line in of_held {
        assert_eq!(line["label"], "timed_out", "{line:#}");
    }
    let stop = lines.last().unwrap();
    let summary = of_type(lines, "summary").next_back().unwrap();
    let abandoned = number(&stop["inspectors_abandoned"]);
    println!("{hung} threads hung, {abandoned} were abandoned");
    assert_eq!(summary["inspectors_abandoned"], abandoned, "{summary:#}");
    assert!(abandoned >= hung, "{abandoned}");
    assert_eq!(abandoned > 0, hung > 0, "{abandoned}");
    let said = errors.lines().filter(|line| line.contains("hangs"));
    assert_eq!(said.count(), usize::from(hung > 0), "{errors}");
    assert_eq!(errors.lines().count(), usize::from(hung > 0), "{errors}");
}

/// While one process is held, others have their lines and causes, and the agent ends in time.
pub(super) fn one() {
    let (stage, closed) = (Stage::new(), ClosedPort::new());
    let (file, agent) = stage.run(&[SILENT.1, closed.port()]);
    let holder = stage.hold(1);
    wait_for_outcomes(&file, SILENT.1, 1);
    let hung = hanging(&agent);
    at_rate(OTHERS, OTHERS_PER_SECOND, |_| closed.refuse(1));
    let count = OTHERS as usize;
    wait_for_outcomes(&file, closed.port(), count);
    let (lines, errors) = stop(agent, &file);
    assert!(holder.finish().success());
    assert_held(&lines, 1, hung.len(), &errors);
    assert_refused(&lines, closed.port(), count, UNKNOWN_MAX);
}

/// While twenty are held, others have their lines and causes. After that the same user's attempts
/// have theirs.
pub(super) fn twenty() {
    let (stage, closed) = (Stage::new(), ClosedPort::new());
    let (file, agent) = stage.run(&[SILENT.1, closed.port(), AFTER_PORT]);
    let holder = stage.hold(MANY);
    wait_for_outcomes(&file, SILENT.1, MANY);
    let hung = hanging(&agent);
    closed.refuse(OTHERS_OF_MANY);
    wait_for_outcomes(&file, closed.port(), OTHERS_OF_MANY);
    assert!(holder.finish().success());
    let freed = Instant::now();
    let is_as_before =
        |looks: Vec<Task>| looks.len() == LOOKS && looks.iter().all(|task| task.state != 'D');
    while !is_as_before(looks(&agent)) {
        assert!(freed.elapsed() < LINES_MAX, "{:?}", looks(&agent));
        thread::sleep(POLL);
    }
    let mut later = in_role_again("refused");
    later.uid(USER).gid(USER);
    let later = Partner::start(later);
    wait_for_outcomes(&file, AFTER_PORT, AFTER);
    assert!(later.finish().success());
    let (lines, errors) = stop(agent, &file);
    assert_held(&lines, MANY, hung.len(), &errors);
    assert_refused(&lines, closed.port(), OTHERS_OF_MANY, UNKNOWN_MAX);
    assert_refused(&lines, AFTER_PORT, AFTER, 0);
    for line in outcomes(&lines, AFTER_PORT) {
        assert_eq!(line["process"]["uid"], USER);
        assert_nothing_listening(line, &["certain"]);
    }
}
