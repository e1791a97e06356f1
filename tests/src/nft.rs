//! Firewall rules, where the thing under test is a firewall.

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

/// A test that needs root and `nft`.
pub fn with_nft(name: &str, test: impl FnOnce() + Send + 'static) -> Trial {
    let has_nft = Command::new("nft")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    let trial = live_test(name, test);
    if has_nft {
        trial
    } else {
        trial.with_kind("needs nft").with_ignored_flag(true)
    }
}
