//! Agent that is stopped, or whose output nobody reads.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    net::{Ipv4Addr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use conntrace_testnet::{self, FAR_V4, ports};
use conntrace_tests::{
    Agent, Dir, LinesFile, as_under_test, assert_adds_up, attempt, checked, conntrace, count,
    number, of_type, tcp, told_lost, told_undelivered,
};
use nix::{
    sched::{CloneFlags, setns},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::faults::storm::{Storm, THREADS, lines_of, on_stage, parsed};

/// Duration of the agent's stop.
const STOPPED: Duration = Duration::from_secs(4);
/// Running time before the stop, and after it.
const RUNS: Duration = Duration::from_millis(700);
/// Number of lines that exceeds the output queue: 32 MiB of lines of about 900 bytes.
const OVER_QUEUE: usize = 70_000;
/// Bytes that a slow reader takes at a time, and its pause afterwards. It reads a tenth of the
/// lines that a storm produces.
const SIP: usize = 16 << 10;
const SIP_EVERY: Duration = Duration::from_millis(5);
/// Lines that take such a reader longer than the limit of a blocked output at the end.
const FOR_SECONDS: usize = 22_000;
/// Rounds that are compared in turn, and attempts in each.
const PAIRS: usize = 200;
const ROUND: usize = 50;
/// Number of records that exceeds the ring: 8 MiB of 240 bytes and a header of 8.
const OVER_RING: usize = 40_000;

fn refusing() -> SocketAddr {
    (FAR_V4, ports::RESETS).into()
}

fn refuse(count: usize) {
    (0..count).for_each(|_| drop(attempt(refusing())));
}

fn refuse_in_threads(count: usize) {
    thread::scope(|scope| {
        (0..THREADS).for_each(|_| drop(scope.spawn(|| refuse(count / THREADS))));
    });
}

/// A stopped agent reads the ring's content afterwards, counts the rest as lost, and continues.
pub(crate) fn stopped_for_seconds() {
    let dir = Dir::new("stopped-for-seconds");
    let file = LinesFile::new(&dir.0);
    let storm = Storm::default();
    let netns = on_stage(|testnet, options| {
        let agent = file.run(options);
        storm.during(|| {
            thread::sleep(RUNS);
            agent.signal(Signal::SIGSTOP);
            storm.next_phase();
            thread::sleep(STOPPED);
            agent.signal(Signal::SIGCONT);
            // The ring has room again when the agent has emptied it.
            thread::sleep(RUNS);
            storm.next_phase();
            thread::sleep(RUNS);
        });
        agent.stop(Signal::SIGTERM);
        testnet.netns
    });
    let lines = parsed(&file.lines());
    let stop = lines.last().unwrap();
    let told = [0, 1, 2].map(|phase| lines_of(&lines, phase, netns));
    let lost = number(&stop["lost"]["ring_full"]);
    println!(
        "stopped for {STOPPED:?} in a storm: {} attempts, {} of them meanwhile; {told:?} lines before, meanwhile and after, {lost} lost in the ring; {stop}",
        storm.attempts(),
        storm.attempts_of(1),
    );
    assert_adds_up(stop);
    assert_eq!(stop["in_flight"], 0);
    assert_eq!(number(&stop["attempts"]), storm.attempts());
    assert_eq!(lost, told_lost(&lines, "ring_full"));
    assert_eq!(told.iter().sum::<usize>() + lost, storm.attempts());
    // The agent may be stopped before it has read what came just before.
    assert!(told[0] > 0 && told[1] > 0);
    assert_eq!(told[2], storm.attempts_of(2));
}

/// Lines that the reader is too slow for are counted, and the others arrive whole.
pub(crate) fn slow_reader() {
    let text = on_stage(|_, options| {
        let (mut reader, writer) = io::pipe().unwrap();
        let agent = Agent::run(options, writer);
        let mut taken = vec![0; SIP];
        let first = reader.read(&mut taken).unwrap();
        taken.truncate(first);
        thread::scope(|scope| {
            let storm = scope.spawn(|| refuse_in_threads(OVER_QUEUE));
            let mut sip = vec![0; SIP];
            while !storm.is_finished() {
                let count = reader.read(&mut sip).unwrap();
                taken.extend_from_slice(&sip[..count]);
                thread::sleep(SIP_EVERY);
            }
        });
        thread::scope(|scope| {
            let rest = scope.spawn(|| reader.read_to_end(&mut taken).unwrap());
            // The loss is reported within the second.
            thread::sleep(3 * RUNS);
            refuse(1);
            thread::sleep(RUNS / 4);
            agent.stop(Signal::SIGTERM);
            rest.join().unwrap();
        });
        String::from_utf8(taken).unwrap()
    });
    let lines = checked(&text);
    let stop = lines.last().unwrap();
    let lost = number(&stop["undelivered"]["output"]);
    println!("a reader of 3 MB/s: {lost} of {OVER_QUEUE} undelivered; {stop}");
    assert_eq!(number(&stop["lost"]["ring_full"]), 0);
    assert!(
        lost > 0 && lost == told_undelivered(&lines, "output"),
        "{lost}"
    );
    assert_eq!(number(&stop["attempts"]), OVER_QUEUE + 1);
    assert_eq!(count(&lines, "outcome"), OVER_QUEUE + 1 - lost);
    // The last one came when lines were read again.
    let last = of_type(&lines, "outcome").next_back().unwrap();
    let loss = of_type(&lines, "loss").next_back().unwrap();
    assert!(last["time"].as_str() > loss["time"].as_str());
}

/// Connects take the same time for filtered namespaces, for an agent that is stuck in a write, and
/// for one that is stopped.
pub(crate) fn nobody_waits_for_it() {
    let own = || File::open("/proc/thread-self/ns/net").unwrap();
    conntrace_testnet::run("unwatched", |_| {
        let unwatched = own();
        on_stage(|_, options| {
            let namespaces = [own(), unwatched];
            let (mut reader, writer) = io::pipe().unwrap();
            let agent = Agent::run(options, writer);
            reader.read_exact(&mut [0]).unwrap();
            refuse_in_threads(OVER_QUEUE);
            let stuck = Times::of(&namespaces);
            agent.signal(Signal::SIGSTOP);
            refuse_in_threads(OVER_RING);
            let stopped = Times::of(&namespaces);
            println!("{} refusals, watched / unwatched: {stuck} while the agent is stuck in a write, {stopped} while it is stopped", PAIRS * ROUND);
            assert!(stuck.ratio() < 1.5 && stopped.ratio() < 1.5);
        });
    })
    .unwrap();
}

/// Time of a connect that is refused within its call: the median in a watched namespace, and in an
/// unwatched one. Preemption then affects only a few of them.
struct Times([Duration; 2]);

impl Times {
    /// Measures both namespaces and leaves the thread in the first.
    fn of(namespaces: &[File; 2]) -> Self {
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..PAIRS {
            // The first comes last.
            for (namespace, times) in namespaces.iter().zip(&mut times).rev() {
                setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
                times.extend((0..ROUND).map(|_| time_of_one()));
            }
        }
        Self(times.map(|mut times| {
            times.sort();
            times[times.len() / 2]
        }))
    }

    fn ratio(&self) -> f64 {
        let [watched, unwatched] = self.0;
        watched.as_secs_f64() / unwatched.as_secs_f64()
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [watched, unwatched] = self.0;
        write!(
            f,
            "median {watched:?} / {unwatched:?} = {:.3}",
            self.ratio()
        )
    }
}

fn time_of_one() -> Duration {
    let remote = (Ipv4Addr::LOCALHOST, ports::RESETS).into();
    let socket = tcp(remote);
    let remote = remote.into();
    let began = Instant::now();
    assert!(socket.connect(&remote).is_err());
    began.elapsed()
}

/// The agent ends even if stdout and stderr are one pipe that nobody reads.
pub(crate) fn stuck_with_stderr() {
    on_stage(|_, options| {
        let (_reader, writer) = io::pipe().unwrap();
        let mut command = conntrace();
        command.arg("run").args(options);
        as_under_test(&mut command);
        command.stdout(writer.try_clone().unwrap()).stderr(writer);
        let mut agent = command.spawn().unwrap();
        thread::sleep(RUNS);
        refuse(3_000);
        let pid = Pid::from_raw(i32::try_from(agent.id()).unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
        let began = Instant::now();
        let status = loop {
            if let Some(status) = agent.try_wait().unwrap() {
                break status;
            }
            if began.elapsed() > Duration::from_secs(15) {
                agent.kill().unwrap();
            }
            thread::sleep(Duration::from_millis(10));
        };
        println!("ended after {:?}: {status}", began.elapsed());
        assert_eq!(status.code(), Some(1));
    });
}

/// A slow reader gets all lines even after the end was requested.
pub(crate) fn slow_reader_at_the_end() {
    let text = on_stage(|_, options| {
        let (mut reader, writer) = io::pipe().unwrap();
        let agent = Agent::run(options, writer);
        let mut taken = vec![0; SIP];
        let first = reader.read(&mut taken).unwrap();
        taken.truncate(first);
        refuse_in_threads(FOR_SECONDS);
        thread::scope(|scope| {
            let slowly = scope.spawn(|| {
                let mut sip = vec![0; SIP];
                loop {
                    let count = reader.read(&mut sip).unwrap();
                    if count == 0 {
                        return;
                    }
                    taken.extend_from_slice(&sip[..count]);
                    thread::sleep(SIP_EVERY);
                }
            });
            let began = Instant::now();
            agent.stop(Signal::SIGTERM);
            println!("{FOR_SECONDS} lines took {:?} at the end", began.elapsed());
            slowly.join().unwrap();
        });
        String::from_utf8(taken).unwrap()
    });
    let lines = checked(&text);
    assert_eq!(count(&lines, "outcome"), FOR_SECONDS);
}
