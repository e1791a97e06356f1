//! Attempts whose handshake completes.

use std::{net::SocketAddr, process::ExitCode};

use conntrace_testnet::{FAR_V4, FAR_V6, ports};
use conntrace_tests::{ExpectedLine, Live, attempt, live_test, run};

pub(crate) fn main() -> ExitCode {
    run(vec![
        live_test("v4", || {
            established(SocketAddr::from((FAR_V4, ports::ACCEPTS)));
        }),
        live_test("v6", || {
            established(SocketAddr::from((FAR_V6, ports::ACCEPTS)));
        }),
    ])
}

fn established(remote: SocketAddr) {
    let live = Live::get();
    let scene = live.play(|_| attempt(remote));
    live.expect(&scene, &[ExpectedLine::established(&scene.value)]);
    assert!(live.stalls(&scene).is_empty());
}
