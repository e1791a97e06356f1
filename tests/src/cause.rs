//! Checks of causes while their evidence still exists.

use std::time::Duration;

use conntrace_testnet::Testnet;
use jiff::Timestamp;
use serde_json::Value;

use crate::{Attempted, Live, assert_has, attempt_on, tcp};

/// Deadline of an application, after which an attempt has timed out.
const DEADLINE: Duration = Duration::from_millis(300);

/// Longer than until the first retransmission, at one second.
const TWO_SYNS: Duration = Duration::from_millis(1300);

/// Limit of runs of a scenario.
const TRIES: usize = 3;

impl Live {
    /// Runs a scenario with this many endings and returns the last line. Its namespace and sockets
    /// are kept until every ending is reported.
    pub fn last_line<T>(&self, endings: usize, act: impl FnOnce(&Testnet) -> T + Send) -> Value {
        let began = format!("{:.9}", Timestamp::now());
        let scene = self.play(|testnet| {
            let held = act(testnet);
            self.tracer()
                .wait_for_endings_since(&began, testnet.netns, endings);
            drop(held);
        });
        self.endings(&scene, endings).pop().unwrap()
    }

    /// Fails unless the last attempt of the scenario has this cause, on one with all of this
    /// evidence. The scenario runs again if the line says that a busy machine left no time for a
    /// diagnosis.
    pub fn expect_cause<T>(
        &self,
        endings: usize,
        (code, certainty): (&str, &str),
        evidence: &Value,
        mut act: impl FnMut(&Testnet) -> T + Send,
    ) -> Value {
        let mut line = Value::Null;
        for _ in 0..TRIES {
            line = self.last_line(endings, &mut act);
            if !line["cause"].is_null() {
                break;
            }
            assert!(!line["undiagnosed"].is_null(), "no cause: {line:#}");
            eprintln!("there was no time to look for a cause: once more");
        }
        assert_cause(&line, (code, certainty), evidence);
        line
    }
}

/// Fails unless the line has this cause, with all of this evidence.
pub fn assert_cause(line: &Value, (code, certainty): (&str, &str), evidence: &Value) {
    let cause = &line["cause"];
    assert_eq!(cause["code"], code, "{line:#}");
    assert_eq!(cause["certainty"], certainty, "{line:#}");
    assert_has(&cause["evidence"], evidence);
    let why = cause["why"].as_str().unwrap();
    let message = line["message"].as_str().unwrap();
    assert!(message.ends_with(&format!(": {why}")), "{message}");
    assert!(!cause["fix"].as_str().unwrap().is_empty());
}

/// Connects, and gives up after a while.
pub fn give_up(remote: impl Into<std::net::SocketAddr>) -> Attempted {
    let remote = remote.into();
    Attempted::within(DEADLINE, &tcp(remote), remote)
}

/// Connects, and gives up only after the kernel has sent the SYN again.
pub fn wait_out(remote: impl Into<std::net::SocketAddr>) -> Attempted {
    let remote = remote.into();
    Attempted::within(TWO_SYNS, &tcp(remote), remote)
}

/// Opens connections until one fails, and returns all of them.
pub fn connect_until_failure(remote: std::net::SocketAddr) -> Vec<(socket2::Socket, i32)> {
    let mut sockets = Vec::new();
    loop {
        let socket = tcp(remote);
        let errno = attempt_on(&socket, remote).errno;
        sockets.push((socket, errno));
        if errno != 0 {
            return sockets;
        }
    }
}
