//! Firewall rules and routes of tests that need real ones.

use std::{
    net::SocketAddr,
    process::{Command, Stdio},
};

use libtest_mimic::Trial;

use crate::live_test;

/// Sets a rule for packets to this port, in the calling thread's namespace.
pub fn nft(chain: &str, remote: SocketAddr, verdict: &str) {
    let port = remote.port();
    let hook = format!("type filter hook {chain} priority 0");
    let table = format!("table inet t {{ chain c {{ {hook}; tcp dport {port} {verdict}; }}; }}");
    let status = Command::new("nft").arg(table).status().unwrap();
    assert!(status.success(), "nft: {status}");
}

/// Runs `ip` with these words, in the calling thread's namespace.
pub fn ip(words: &str) {
    let status = Command::new("ip").args(words.split(' ')).status().unwrap();
    assert!(status.success(), "ip {words}: {status}");
}

/// Connects the calling thread's namespace, 198.18.0.1, with that of a process,
/// 198.18.0.2.
pub fn link_into(pid: u32) {
    ip(&format!(
        "link add outside type veth peer name inside netns {pid}"
    ));
    ip("link set outside up");
    ip("addr add 198.18.0.1/24 dev outside");
    for words in ["link set inside up", "addr add 198.18.0.2/24 dev inside"] {
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["-t", &pid.to_string(), "-n", "ip"]);
        assert!(nsenter.args(words.split(' ')).status().unwrap().success());
    }
}

/// A test that needs root and `nft`.
pub fn with_nft(name: &str, test: impl Fn() + Send + 'static) -> Trial {
    with_program("nft", "--version", name, test)
}

/// A test that needs root and `ip`.
pub fn with_ip(name: &str, test: impl Fn() + Send + 'static) -> Trial {
    with_program("ip", "-Version", name, test)
}

/// A test that needs root, `nft` and the `iptables` that sets rules of `nf_tables`.
pub fn with_iptables(name: &str, test: impl Fn() + Send + 'static) -> Trial {
    with_program("iptables-nft", "--version", name, test)
}

fn with_program(
    program: &str,
    version: &str,
    name: &str,
    test: impl Fn() + Send + 'static,
) -> Trial {
    let is_there = Command::new(program)
        .arg(version)
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    let trial = live_test(name, test);
    if is_there {
        trial
    } else {
        let needs = format!("needs {program}");
        trial.with_kind(needs).with_ignored_flag(true)
    }
}
