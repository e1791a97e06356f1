//! Fields of a complete record beside those of the ending: socket, program, and earlier results of
//! its host.

use std::{
    env, fs,
    fs::File,
    io::BufReader,
    net::{IpAddr, Ipv4Addr},
    os::fd::AsFd as _,
    process::ExitCode,
    thread,
    time::Duration,
};

use conntrace::{
    record,
    record::{Attempt, ExeId, HostTimes},
    recording::{Entry, RecordingReader},
};
use conntrace_common::answers::UNTOLD_NS;
use conntrace_testnet::{self, FAR_DEVICE, FAR_V4, FAR_V6, Testnet, ports};
use conntrace_tests::{
    Dir, Recording, attempt, attempt_on, ip, lacks_tracefs, live_test, run, tcp, unless, wait_out,
    with_ip,
};
use nix::sys::socket::{setsockopt, sockopt};

/// Hosts of a private network on the far side.
const PRIVATE: [Ipv4Addr; 3] = [
    Ipv4Addr::new(10, 66, 0, 2),
    Ipv4Addr::new(10, 66, 0, 3),
    Ipv4Addr::new(10, 67, 1, 2),
];
/// Address without a route from the testnet.
const NOWHERE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
const MARK: u32 = 0x8000_0007;
const SECOND_NS: u64 = 1_000_000_000;
/// Time after which the kernel side tells another handshake with a host.
const FRESH: Duration = Duration::from_millis(1100);

pub(crate) fn main() -> ExitCode {
    // Failed calls are traced by system calls where functions cannot be hooked.
    let tracefs = lacks_tracefs();
    run(vec![
        unless(tracefs, live_test("call_that_fails", call_that_fails)),
        live_test("socket_v4", || socket(FAR_V4.into())),
        live_test("socket_v6", || socket(FAR_V6.into())),
        live_test("answers", || answers(&[])),
        live_test("answers_with_handshakes_reported", || answers(&["--all"])),
        live_test("five_ports", five_ports),
        with_ip("neighbours_of_a_private_network", neighbours),
    ])
}

/// Records a testnet's attempts until the given number of endings.
fn recorded(options: &[&str], endings: usize, act: impl FnOnce(&Testnet) + Send) -> Vec<Attempt> {
    let name = format!("remembered-{:?}", thread::current().id());
    let dir = Dir::new(&name.replace(['(', ')'], "-"));
    let recording = conntrace_testnet::run("remembered", |testnet| {
        let netns = testnet.netns.to_string();
        let options = [&["--netns", netns.as_str(), "--no-stalls"], options].concat();
        let recording = Recording::start(&dir.0, &options);
        act(testnet);
        recording.wait_for("\"type\":\"outcome\"", endings);
        recording
    });
    recording.unwrap().stop();
    let file = BufReader::new(File::open(dir.file("recording")).unwrap());
    let mut reader = RecordingReader::new(file).unwrap();
    let mut attempts = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        if let Entry::Record(record) = entry {
            attempts.push(record::decode(&record).unwrap());
        }
    }
    attempts.retain(|attempt| attempt.moment != record::RecordKind::Stalled);
    // A line that waits for its cause is overtaken by others.
    attempts.sort_by_key(|attempt| attempt.at_ns);
    attempts
}

/// Reads this program's device and inode from `/proc/self/maps`. Its columns are range,
/// permissions, offset, device, inode and path.
fn own_exe() -> ExeId {
    let path = env::current_exe().unwrap();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps
        .lines()
        .find(|line| line.ends_with(path.to_str().unwrap()));
    let fields: Vec<_> = line.unwrap().split_ascii_whitespace().collect();
    let (major, minor) = fields[3].split_once(':').unwrap();
    let number = |hex: &str| u32::from_str_radix(hex, 16).unwrap();
    ExeId {
        device: number(major) << 20 | number(minor),
        inode: fields[4].parse().unwrap(),
    }
}

fn socket(host: IpAddr) {
    let attempts = recorded(&[], 2, |_| {
        attempt((host, ports::RESETS));
        let socket = tcp((host, ports::RESETS).into());
        socket.bind_device(Some(FAR_DEVICE.as_bytes())).unwrap();
        setsockopt(&socket.as_fd(), sockopt::Mark, &MARK).unwrap();
        attempt_on(&socket, (host, ports::RESETS));
    });
    let [plain, special] = &attempts[..] else {
        panic!("{attempts:#?}");
    };
    assert_eq!((plain.bound_device, plain.mark), (None, 0));
    assert_eq!(special.mark, MARK);
    // The testnet's namespace has no device before it but `lo`.
    assert!(special.bound_device.is_some_and(|index| index > 1));
    for attempt in &attempts {
        assert_eq!(attempt.socket_uid, Some(0));
        assert_eq!(attempt.caller.as_ref().unwrap().exe, Some(own_exe()));
    }
}

/// A call that fails without a route is recorded, although it never becomes an attempt.
fn call_that_fails() {
    let attempts = recorded(&["--trace-syscalls"], 1, |_| {
        let remote = (NOWHERE, ports::RESETS).into();
        let socket = tcp(remote);
        setsockopt(&socket.as_fd(), sockopt::Mark, &MARK).unwrap();
        attempt_on(&socket, remote);
    });
    let failed = attempts.last().unwrap();
    assert!(matches!(
        failed.moment,
        record::RecordKind::ConnectFailed(_)
    ));
    assert_eq!((failed.mark, failed.bound_device), (MARK, None));
    assert_eq!(failed.socket_uid, Some(0));
    assert_eq!(failed.caller.as_ref().unwrap().exe, Some(own_exe()));
}

/// Returns the host record of the last attempt, and the attempt's start and end times.
fn last(attempts: &[Attempt]) -> (&HostTimes, u64, u64) {
    let last = attempts.last().unwrap();
    (&last.remembered, last.since_ns, last.at_ns)
}

fn answers(options: &[&str]) {
    let count = if options.is_empty() { 4 } else { 5 };
    let attempts = recorded(options, count, |_| {
        wait_out((FAR_V4, ports::SILENT));
        attempt((FAR_V4, ports::RESETS));
        assert_eq!(attempt((FAR_V4, ports::ACCEPTS)).errno, 0);
        wait_out((FAR_V4, ports::SILENT));
        thread::sleep(FRESH);
        attempt((FAR_V4, ports::RESETS));
    });
    // The first attempt's own silence is reported; the RST is reported only to later ones.
    let first = &attempts[0];
    let silent = HostTimes {
        silent_since_ns: Some(first.since_ns),
        ..HostTimes::default()
    };
    assert_eq!(first.remembered, silent);
    assert_eq!(attempts[1].remembered, silent, "no evidence about itself");
    let second = attempts[1].at_ns;
    for attempt in attempts.iter().rev().take(2) {
        let told = &attempt.remembered;
        let (handshake_ns, port) = told.handshake.unwrap();
        let (reset_ns, reset_port) = told.reset.unwrap();
        assert_eq!((port, reset_port), (ports::ACCEPTS, ports::RESETS));
        assert_eq!(reset_ns, second & !0xffff);
        assert!((second & !0xffff..attempt.since_ns).contains(&handshake_ns));
        assert!(told.handshake_took_us.is_some_and(|us| us < 1_000_000));
        assert_eq!((told.on_this_port_ns, told.silent_since_ns), (None, None));
        assert_eq!(
            (told.network_silent_since_ns, told.forgotten_ns),
            (None, None)
        );
    }
}

/// A host's record evicts one of its ports for a fifth. The record says so, but not which port it
/// was.
fn five_ports() {
    let attempts = recorded(&["--all"], 6, |_| {
        let servers: Vec<_> = (0..5)
            .map(|_| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap())
            .collect();
        let ports: Vec<_> = servers
            .iter()
            .map(|it| it.local_addr().unwrap().port())
            .collect();
        for port in &ports {
            assert_eq!(attempt((Ipv4Addr::LOCALHOST, *port)).errno, 0);
        }
        drop(servers);
        attempt((Ipv4Addr::LOCALHOST, ports[4]));
    });
    let (told, ..) = last(&attempts);
    let fifth_ns = attempts[4].at_ns;
    assert_eq!(told.on_this_port_ns, Some(fifth_ns & !0xffff));
    assert_eq!(told.forgotten_ns, Some(fifth_ns + UNTOLD_NS));
    let (told, ..) = last(&attempts[..5]);
    assert_eq!((told.on_this_port_ns, told.forgotten_ns), (None, None));
    assert_eq!(
        told.handshake,
        Some((
            attempts[3].at_ns & !0xffff,
            attempts[3].remote.unwrap().port
        ))
    );
}

/// Silence is recorded for each host, and for a network as long as none of its hosts answers.
fn neighbours() {
    let [one, other, third] = PRIVATE;
    let attempts = recorded(&[], 6, |_| {
        ip(&format!("route add 10.64.0.0/10 dev {FAR_DEVICE}"));
        wait_out((one, ports::SILENT));
        wait_out((third, ports::SILENT));
        assert_eq!(attempt((other, ports::ACCEPTS)).errno, 0);
        wait_out((one, ports::SILENT));
        wait_out((other, ports::SILENT));
        wait_out((other, ports::ACCEPTS + 1));
        attempt((third, ports::RESETS));
    });
    let since_ns = Some(attempts[0].since_ns);
    let silences = |told: &HostTimes| (told.silent_since_ns, told.network_silent_since_ns);
    assert_eq!(silences(&attempts[0].remembered), (since_ns, since_ns));
    let third_ns = Some(attempts[1].since_ns);
    assert_eq!(silences(&attempts[1].remembered), (third_ns, since_ns));
    // A neighbour has answered: the host is still silent, its network is not.
    assert_eq!(silences(&attempts[2].remembered), (since_ns, None));
    for attempt in &attempts[3..5] {
        let told = &attempt.remembered;
        assert_eq!(silences(told), (None, None));
        let (at_ns, port) = told.handshake.unwrap();
        assert_eq!((port, told.on_this_port_ns), (ports::ACCEPTS, None));
        assert!(attempt.since_ns - at_ns < 60 * SECOND_NS);
    }
    assert_eq!(silences(&attempts[5].remembered), (third_ns, None));
    assert!(
        attempts
            .iter()
            .all(|it| it.remembered.forgotten_ns.is_none())
    );
}
