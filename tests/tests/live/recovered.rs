//! Endings that no program saw. The object is patched: its program at `inet_sock_set_state` ignores
//! what follows `TCP_SYN_SENT`, as if the kernel had skipped every such run.

use std::{
    env, fs,
    io::Read as _,
    net::{SocketAddr, TcpListener},
    os::fd::AsFd as _,
    process::ExitCode,
    thread,
    time::Duration,
};

use conntrace_testnet::{self, FAR_V4, FAR_V6, ports};
use conntrace_tests::{Dir, TracerProcess, assert_adds_up, live_test, run, tcp, without_linger};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use object::{Object as _, ObjectSection as _, read::elf::ElfFile64};
use serde_json::Value;
use socket2::Socket;

static OBJECT: &[u8] = include_bytes!("../../../conntrace/bpf/conntrace.bpf.o");
const SECTION: &str = "tp_btf/inet_sock_set_state";
/// Opcode of a jump if the lower half of a register equals a constant (`BPF_JMP32 | BPF_JEQ`).
const JUMP_IF_EQUAL: u8 = 0x16;
const SYN_SENT: i32 = 2;
/// Value that is no state.
const NO_STATE: i32 = 99;

pub(crate) fn main() -> ExitCode {
    run(vec![
        live_test("refused_v4", || {
            told(
                SocketAddr::from((FAR_V4, ports::RESETS)),
                "refused",
                "ECONNREFUSED",
            );
        }),
        live_test("refused_v6", || {
            told(
                SocketAddr::from((FAR_V6, ports::RESETS)),
                "refused",
                "ECONNREFUSED",
            );
        }),
        live_test("timed_out", || {
            told(
                SocketAddr::from((FAR_V4, ports::SILENT)),
                "timed_out",
                "ETIMEDOUT",
            );
        }),
        live_test("error_was_read", error_was_read),
        live_test("handshakes", handshakes),
    ])
}

/// Runs the agent with the patched object while `act` makes attempts, and returns its lines.
fn lines_of(act: impl FnOnce() + Send) -> Vec<Value> {
    let name = format!("recovered-{:?}", thread::current().id());
    let dir = Dir::new(&name.replace(['(', ')'], "-"));
    let path = dir.file("object");
    fs::write(&path, patched()).unwrap();
    let lines = conntrace_testnet::run("recovered", |testnet| {
        let netns = testnet.netns.to_string();
        let object = path.to_str().unwrap();
        let tracer = TracerProcess::start(&["--no-stalls", "--netns", &netns, "--object", object]);
        act();
        thread::sleep(Duration::from_millis(300));
        tracer.stop()
    });
    lines.unwrap()
}

/// Returns the object under test whose program does not recognise `TCP_SYN_SENT` as an old state.
fn patched() -> Vec<u8> {
    let mut bytes = match env::var_os("CONNTRACE_OBJECT") {
        Some(path) => fs::read(path).unwrap(),
        None => OBJECT.to_vec(),
    };
    let range = {
        let file: ElfFile64 = ElfFile64::parse(&*bytes).unwrap();
        file.section_by_name(SECTION).unwrap().file_range().unwrap()
    };
    let [start, len] = [range.0, range.1].map(|it| usize::try_from(it).unwrap());
    let mut code = bytes[start..start + len].chunks_exact_mut(8);
    let compares = |it: &&mut [u8]| it[0] == JUMP_IF_EQUAL && it[4..] == SYN_SENT.to_le_bytes();
    let jump = code.find(compares).expect("it compares the old state");
    jump[4..].copy_from_slice(&NO_STATE.to_le_bytes());
    bytes
}

/// Connects without waiting, waits for the result, and leaves it unread.
fn ended(remote: SocketAddr) -> Socket {
    let socket = tcp(remote);
    socket.set_nonblocking(true).unwrap();
    let timeout = Some(Duration::from_millis(1500));
    socket.set_tcp_user_timeout(timeout).unwrap();
    let _ = socket.connect(&remote.into());
    let mut polled = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
    assert_eq!(poll(&mut polled, PollTimeout::from(10_000_u16)).unwrap(), 1);
    socket
}

fn outcomes(lines: &[Value]) -> Vec<&Value> {
    lines
        .iter()
        .filter(|line| line["type"] == "outcome")
        .collect()
}

/// An error that nobody has read tells the ending when the socket is destroyed.
fn told(remote: SocketAddr, label: &str, errno: &str) {
    let lines = lines_of(|| drop(ended(remote)));
    let [line] = outcomes(&lines)[..] else {
        panic!("one line, not {lines:#?}");
    };
    assert_eq!(
        (&line["label"], &line["errno"]),
        (&label.into(), &errno.into())
    );
    assert_eq!(line["seen"], "ending_recovered");
    assert_eq!(line["process"]["pid"], std::process::id());
    assert_eq!(line["remote"]["port"], remote.port());
    assert!(
        line["started"].is_string() && line["elapsed_us"].is_null(),
        "{line:#}"
    );
    let message = line["message"].as_str().unwrap();
    assert!(message.contains(" after an unknown time"), "{message}");
    let stop = lines.last().unwrap();
    assert_eq!(
        (&stop["attempts"], &stop["lost"]["ending_missed"]),
        (&1.into(), &0.into())
    );
    assert_adds_up(stop);
}

/// Nothing tells an ending whose error was read. It is counted.
fn error_was_read() {
    let remote = SocketAddr::from((FAR_V4, ports::RESETS));
    let lines = lines_of(|| {
        let socket = ended(remote);
        assert!(socket.take_error().unwrap().is_some());
    });
    assert_eq!(outcomes(&lines), [&Value::Null; 0]);
    let stop = lines.last().unwrap();
    assert_eq!(
        (&stop["attempts"], &stop["lost"]["ending_missed"]),
        (&1.into(), &1.into())
    );
    assert_adds_up(stop);
}

/// An error after the handshake is none of the attempt, which has succeeded.
fn handshakes() {
    let lines = lines_of(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let remote = listener.local_addr().unwrap();
        let closed = ended(remote);
        drop(listener.accept().unwrap());
        let mut rest = Vec::new();
        closed.set_nonblocking(false).unwrap();
        (&closed).read_to_end(&mut rest).unwrap();
        drop(closed);
        let reset = ended(remote);
        let (accepted, _) = listener.accept().unwrap();
        drop(without_linger(accepted.into()));
        thread::sleep(Duration::from_millis(100));
        drop(reset);
    });
    assert_eq!(outcomes(&lines), [&Value::Null; 0]);
    let stop = lines.last().unwrap();
    assert_eq!(stop["outcomes"]["established"], 2, "{stop:#}");
    assert_eq!(stop["lost"]["ending_missed"], 0);
    assert_adds_up(stop);
}
