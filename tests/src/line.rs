//! Complete line that is expected of an attempt.

use std::{
    env, fs,
    net::{IpAddr, SocketAddr},
    ops::Range,
    process,
    sync::OnceLock,
};

use conntrace_testnet::{FAR_ROUTER_V4, FAR_ROUTER_V6, source_of};
use jiff::Timestamp;
use nix::errno::Errno;
use serde_json::{Value, json};

use crate::{Attempted, is_covered, own_cgroup};

/// Earliest time of the first SYN retransmission, with a tolerance of one kernel tick.
const STALLS_AFTER_US: u64 = 990_000;

/// Expected reply in the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedReply {
    /// No reply.
    None,
    /// SYN-ACK.
    SynAck,
    /// RST.
    Rst,
    /// ICMP error of this type and code from the far router.
    Icmp(u8, u8),
    /// `ICMPv6` error of this type and code from the far router, without `IPV6_RECVERR`. Without
    /// function hooks only the errno is known.
    Icmp6(u8, u8),
    /// ICMP error of this type and code from this host.
    Local(u8, u8),
    /// `ICMPv6` error of this type and code from this host, without `IPV6_RECVERR`.
    Local6(u8, u8),
    /// Reply of this host that is not ICMP, or of which only the errno is known.
    LocalUnknown,
    /// Drop by this host. A kernel without drop reasons shows the fallback instead.
    Dropped(Unless),
}

/// Expected reply on a kernel that gives no reason for a drop by this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unless {
    /// No reply, as if the peer were silent.
    None,
    /// RST that resulted from the drop.
    Rst,
}

/// Expected content of a line.
#[derive(Debug, Clone)]
pub struct ExpectedLine {
    /// The attempt as the application saw it.
    pub attempted: Attempted,
    /// Expected value of `label`.
    pub label: &'static str,
    /// Expected errno by its symbolic name.
    pub errno: Option<String>,
    /// Expected number of SYNs sent.
    pub syn_sent: u32,
    /// Expected number of SYN retransmissions.
    pub syn_retransmitted: u32,
    /// Expected reply.
    pub reply: ExpectedReply,
    /// Side that gave up, if the attempt timed out.
    pub timeout_by: Option<&'static str>,
    /// True if a local port was assigned.
    pub has_port: bool,
}

impl ExpectedLine {
    /// Expects one SYN, no reply, and the errno that the application got.
    pub fn new(label: &'static str, attempted: &Attempted) -> Self {
        let errno =
            (attempted.errno != 0).then(|| format!("{:?}", Errno::from_raw(attempted.errno)));
        Self {
            attempted: attempted.clone(),
            label,
            errno,
            syn_sent: 1,
            syn_retransmitted: 0,
            reply: ExpectedReply::None,
            timeout_by: None,
            has_port: true,
        }
    }

    /// Expects a completed handshake.
    pub fn established(attempted: &Attempted) -> Self {
        assert_eq!(attempted.errno, 0);
        Self {
            reply: ExpectedReply::SynAck,
            ..Self::new("established", attempted)
        }
    }

    /// Expects a refusal by RST.
    pub fn refused(attempted: &Attempted) -> Self {
        assert_eq!(attempted.errno, Errno::ECONNREFUSED as i32);
        Self {
            reply: ExpectedReply::Rst,
            ..Self::new("refused", attempted)
        }
    }

    /// Expects that the kernel found no free local port.
    pub fn port_exhausted(attempted: &Attempted) -> Self {
        Self {
            has_port: false,
            ..Self::no_address("port_exhausted", attempted)
        }
    }

    /// Expects that another socket has the 4-tuple with this local port, which was chosen before
    /// the attempt.
    pub fn address_unavailable(attempted: &Attempted, port: u16) -> Self {
        // A socket that is bound to no address no longer has a port to read.
        let attempted = Attempted {
            local_port: Some(port),
            ..attempted.clone()
        };
        Self::no_address("address_unavailable", &attempted)
    }

    /// Adapts the expectation to a SYN that waits for the neighbour's address. A kernel sometimes
    /// counts it as sent once more, as this line shows.
    pub fn waiting_for_neighbour(self, line: &Value) -> Self {
        let again = u32::from(line["syn"]["retransmitted"] == 1);
        Self {
            syn_sent: 1 + again,
            syn_retransmitted: again,
            ..self
        }
    }

    /// Expects an attempt without a local address or SYN.
    fn no_address(label: &'static str, attempted: &Attempted) -> Self {
        assert_eq!(Errno::from_raw(attempted.errno), Errno::EADDRNOTAVAIL);
        Self {
            syn_sent: 0,
            ..Self::new(label, attempted)
        }
    }

    /// Expects that the application gave up without an errno.
    pub fn gave_up(label: &'static str, attempted: &Attempted) -> Self {
        Self {
            errno: None,
            timeout_by: (label == "timed_out").then_some("application"),
            ..Self::new(label, attempted)
        }
    }

    /// Fails unless `line` is equal in every field. Times, ids and ephemeral ports are checked for
    /// consistency. The tests of causes check the cause.
    pub fn assert_is(&self, line: &Value, netns: u32) {
        assert_times(line);
        assert_id(line, self.attempted.tid);
        let message = line["message"].as_str().unwrap();
        let who = format!("{}[{}] ", self.attempted.comm, process::id());
        assert!(message.starts_with(&who), "{message}");
        let mut expected = self.json(netns);
        for unforeseeable in [
            "time",
            "started",
            "elapsed_us",
            "attempt_id",
            "message",
            "cause",
            "undiagnosed",
        ] {
            expected[unforeseeable] = line[unforeseeable].clone();
        }
        if self.has_port && self.local_port().is_none() {
            let port = line["local"]["port"].as_u64().expect("a local port");
            assert!(port > 0 && port < 65_536);
            expected["local"]["port"] = port.into();
        }
        assert_eq!(line, &expected, "got the left one, expected the right one");
    }

    /// Fails unless `stall` is the first SYN retransmission of the attempt that ended as `outcome`,
    /// in every field. `reply` is the reply received by then.
    pub fn assert_stall(&self, stall: &Value, outcome: &Value, reply: ExpectedReply) {
        let unanswered = STALLS_AFTER_US..2_000_000;
        self.assert_stall_within(unanswered, stall, outcome, reply);
    }

    /// Fails unless `stall` is that of a SYN sent again this many microseconds after the first.
    pub fn assert_stall_within(
        &self,
        after_us: Range<u64>,
        stall: &Value,
        outcome: &Value,
        reply: ExpectedReply,
    ) {
        assert_times(stall);
        let elapsed_us = stall["elapsed_us"].as_u64().unwrap();
        assert!(after_us.contains(&elapsed_us), "after {elapsed_us} us");
        assert!(elapsed_us < outcome["elapsed_us"].as_u64().unwrap());
        let mut expected = outcome.clone();
        for no_ending in ["label", "errno", "cause", "undiagnosed"] {
            expected.as_object_mut().unwrap().remove(no_ending);
        }
        expected["type"] = "stall".into();
        expected["syn"] = json!({ "sent": 2, "retransmitted": 1 });
        expected["reply"] = reply.json(self.attempted.remote);
        expected["timeout_by"] = Value::Null;
        for own in ["time", "elapsed_us", "message"] {
            expected[own] = stall[own].clone();
        }
        assert_eq!(stall, &expected, "got the left one, expected the right one");
    }

    fn json(&self, netns: u32) -> Value {
        let remote = self.attempted.remote;
        json!({
            "schema": 1,
            "type": "outcome",
            "hostname": host(),
            "label": self.label,
            "errno": self.errno,
            "seen": "whole",
            "process": {
                "pid": process::id(),
                "tid": self.attempted.tid,
                "comm": self.attempted.comm,
                "leader_comm": leader_comm(),
                "exe": env::current_exe().unwrap(),
                "uid": 0,
                "cgroup": own_cgroup(),
            },
            "container": null,
            "netns": netns,
            "local": { "addr": source_of(remote.ip()), "port": self.local_port() },
            "remote": remote_end(remote),
            "syn": { "sent": self.syn_sent, "retransmitted": self.syn_retransmitted },
            "reply": self.reply.json(remote),
            "timeout_by": self.timeout_by,
            "suppressed": 0,
            "cause": null,
            "undiagnosed": null,
        })
    }

    fn local_port(&self) -> Option<u16> {
        self.attempted.local_port.filter(|_| self.has_port)
    }
}

impl ExpectedReply {
    fn json(self, remote: SocketAddr) -> Value {
        let v6 = remote.ip().to_canonical().is_ipv6();
        let router = if v6 {
            IpAddr::from(FAR_ROUTER_V6)
        } else {
            FAR_ROUTER_V4.into()
        };
        let (kind, icmp, from) = match self {
            Self::Dropped(_) if is_covered("local_drop") => ("local", None, None),
            Self::None | Self::Dropped(Unless::None) => ("none", None, None),
            Self::SynAck => ("syn_ack", None, None),
            Self::Rst | Self::Dropped(Unless::Rst) => ("rst", None, None),
            Self::Icmp(kind, code) => ("icmp", Some((kind, code)), Some(router)),
            Self::Local(kind, code) => ("local", Some((kind, code)), source_of(remote.ip())),
            Self::Icmp6(kind, code) if is_covered("icmp6_detail") => {
                return Self::Icmp(kind, code).json(remote);
            }
            Self::Local6(kind, code) if is_covered("icmp6_detail") => {
                return Self::Local(kind, code).json(remote);
            }
            Self::Icmp6(..) => ("icmp", None, None),
            Self::Local6(..) | Self::LocalUnknown => ("local", None, None),
        };
        json!({
            "kind": kind,
            "icmp_type": icmp.map(|(kind, _)| kind),
            "icmp_code": icmp.map(|(_, code)| code),
            "from": from,
        })
    }
}

/// Returns the remote side of a line without further knowledge of it.
pub fn remote_end(remote: impl Into<SocketAddr>) -> Value {
    let remote = remote.into();
    json!({
        "addr": remote.ip().to_canonical(),
        "port": remote.port(),
        "name": null,
        "nat": null,
        "asked": null,
    })
}

/// Checks that the times of a line are consistent and recent.
fn assert_times(line: &Value) {
    let at = |name: &str| line[name].as_str().unwrap().parse::<Timestamp>().unwrap();
    let (started, ended) = (at("started"), at("time"));
    let lasted_us = ended.duration_since(started).as_micros();
    let elapsed_us = i128::from(line["elapsed_us"].as_u64().unwrap());
    assert!(
        (lasted_us - elapsed_us).abs() <= 1,
        "{lasted_us} us, says {elapsed_us}"
    );
    let age = Timestamp::now().duration_since(ended).as_secs();
    assert!((0..120).contains(&age), "{age} s old");
}

fn assert_id(line: &Value, tid: u32) {
    let id = line["attempt_id"].as_str().unwrap();
    let (began, by) = id.split_once('-').unwrap();
    assert!(u64::from_str_radix(began, 16).unwrap() > 0);
    assert_eq!(u32::from_str_radix(by, 16).unwrap(), tid, "id {id}");
}

fn host() -> &'static str {
    static HOST: OnceLock<String> = OnceLock::new();
    HOST.get_or_init(|| read("/proc/sys/kernel/hostname"))
}

fn leader_comm() -> String {
    read(&format!("/proc/{}/comm", process::id()))
}

fn read(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap()
        .trim_end_matches('\n')
        .to_owned()
}
