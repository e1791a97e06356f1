use std::net::IpAddr;

use nix::errno::Errno as E;

use crate::record::{
    Drops, IcmpError, Remote,
    label::tests::{errno, icmp4, icmp6, unanswered},
    *,
};

const OWN: [u8; 4] = [10, 0, 0, 2];
const OWN6: [u16; 8] = [0xfd00, 0, 0, 0, 0, 0, 0, 2];

fn to(addr: IpAddr) -> Option<Remote> {
    Some(Remote { addr, port: 5432 })
}

fn dropped(count: u8) -> Option<Drops> {
    Some(Drops { count, reason: 12 })
}

fn sent_by(from: impl Into<IpAddr>, icmp: Option<IcmpError>) -> Option<IcmpError> {
    Some(IcmpError {
        from: Some(from.into()),
        ..icmp?
    })
}

fn render(reply: &Reply) -> String {
    let or_null = |value: Option<String>| value.unwrap_or_else(|| "null".to_owned());
    format!(
        "{} {} {} {}",
        serde_json::to_value(reply.kind).unwrap().as_str().unwrap(),
        or_null(reply.icmp_type.map(|n| n.to_string())),
        or_null(reply.icmp_code.map(|n| n.to_string())),
        or_null(reply.from.map(|addr| addr.to_string())),
    )
}

/// Test case: name, changes to [`unanswered`], and the expected kind, ICMP type and code, and
/// sender.
type ReplyCase = (&'static str, fn(&mut Attempt), &'static str);

#[rustfmt::skip]
const REPLIES: &[ReplyCase] = &[
    ("nothing", |_| {}, "none null null null"),
    ("handshake", |a| (a.moment, a.heard) = (RecordKind::Established, true), "syn_ack null null null"),
    ("connected under TCP repair", |a| {
        a.moment = RecordKind::Established;
        a.syn_sent = 0;
    }, "none null null null"),
    ("handshake after an ICMP error", |a| {
        (a.moment, a.heard) = (RecordKind::Established, true);
        a.icmp = icmp4(3, 1, E::EHOSTUNREACH);
    }, "syn_ack null null null"),
    ("RST", |a| { a.heard = true; a.error = errno(E::ECONNREFUSED) }, "rst null null null"),
    ("RST of this host's own rule, which also dropped the SYN", |a| {
        a.heard = true;
        a.error = errno(E::ECONNREFUSED);
        a.drops = dropped(1);
    }, "local null null null"),
    ("RST for the second SYN, the first was dropped here", |a| {
        a.heard = true;
        a.error = errno(E::ECONNREFUSED);
        (a.syn_sent, a.drops) = (2, dropped(1));
    }, "rst null null null"),
    ("nothing, for this host dropped the SYN", |a| a.drops = dropped(1), "local null null null"),
    ("RST after an ICMP error", |a| {
        a.heard = true;
        a.icmp = icmp4(3, 1, E::EHOSTUNREACH);
        a.error = errno(E::ECONNREFUSED);
    }, "rst null null null"),
    ("RST after a simultaneous open", |a| { a.heard = true; a.error = errno(E::ECONNRESET) }, "rst null null null"),
    ("RST after a simultaneous open, an ICMP error came before", |a| {
        a.heard = true;
        a.icmp = icmp4(3, 3, E::ECONNREFUSED);
        a.error = errno(E::ECONNRESET);
    }, "rst null null null"),
    ("a stray segment, then ICMP that refuses", |a| {
        a.heard = true;
        a.icmp = icmp4(3, 3, E::ECONNREFUSED);
        a.error = errno(E::ECONNREFUSED);
    }, "icmp 3 3 10.0.0.1"),
    ("a stray segment, then nothing", |a| a.heard = true, "none null null null"),
    ("unqueued, from this host to itself", |a| {
        a.remote = to(OWN.into());
        a.soft_error = errno(E::ECONNREFUSED);
    }, "local null null null"),

    // Queued ICMP errors.
    ("v4, from a router", |a| a.icmp = icmp4(3, 1, E::EHOSTUNREACH), "icmp 3 1 10.0.0.1"),
    ("v4, from the destination", |a| {
        a.icmp = sent_by([10, 0, 0, 5], icmp4(3, 3, E::ECONNREFUSED));
    }, "icmp 3 3 10.0.0.5"),
    ("v4, from this host: own REJECT, or the neighbour failed", |a| {
        a.icmp = sent_by(OWN, icmp4(3, 1, E::EHOSTUNREACH));
    }, "local 3 1 10.0.0.2"),
    ("v4, sender unknown and no local address is no match", |a| {
        a.local_addr = None;
        a.icmp = icmp4(3, 1, E::EHOSTUNREACH).map(|icmp| IcmpError { from: None, ..icmp });
    }, "icmp 3 1 null"),
    ("v4, from this host: 127.0.0.1 asked 127.0.0.2", |a| {
        a.local_addr = Some([127, 0, 0, 1].into());
        a.remote = to([127, 0, 0, 2].into());
        a.icmp = sent_by([127, 0, 0, 2], icmp4(3, 3, E::ECONNREFUSED));
    }, "local 3 3 127.0.0.2"),
    ("v6 with IPV6_RECVERR, from a router", |a| {
        a.local_addr = Some(OWN6.into());
        a.icmp = icmp6(1, 1, E::EACCES);
    }, "icmp 1 1 fd00::1"),
    ("v6 with IPV6_RECVERR, from this host", |a| {
        a.local_addr = Some(OWN6.into());
        a.icmp = sent_by(OWN6, icmp6(1, 3, E::EHOSTUNREACH));
    }, "local 1 3 fd00::2"),

    // Only the errno is left: v6 without IPV6_RECVERR.
    ("v6, prohibited", |a| a.error = errno(E::EACCES), "icmp null null null"),
    ("v6, port unreachable, closed early", |a| a.soft_error = errno(E::ECONNREFUSED), "icmp null null null"),
    ("v6, address unreachable, after a retransmission that left", |a| {
        a.error = errno(E::EHOSTUNREACH);
        (a.rto_count, a.syn_retransmitted, a.syn_sent) = (1, 1, 2);
    }, "icmp null null null"),
    ("v6, the neighbour failed", |a| {
        a.error = errno(E::EHOSTUNREACH);
        a.rto_count = 3;
    }, "local null null null"),
    ("v6, the neighbour failed, closed early", |a| {
        a.soft_error = errno(E::EHOSTUNREACH);
        a.rto_count = 1;
    }, "local null null null"),
    ("v6, refused although a retransmission could not leave", |a| {
        a.error = errno(E::ECONNREFUSED);
        a.rto_count = 1;
    }, "icmp null null null"),

    // Errors that are not an answer.
    ("SYN retries exhausted", |a| a.error = errno(E::ETIMEDOUT), "none null null null"),
    ("SYN retries exhausted, none could leave", |a| {
        a.error = errno(E::ETIMEDOUT);
        a.rto_count = 6;
    }, "none null null null"),
    ("ss -K", |a| a.error = errno(E::ECONNABORTED), "none null null null"),
    ("path MTU discovery", |a| a.soft_error = errno(E::EMSGSIZE), "none null null null"),
    ("no SYN, an earlier attempt's error", |a| {
        a.syn_sent = 0;
        a.error = errno(E::ECONNRESET);
    }, "none null null null"),
    ("no SYN, an earlier attempt's neighbour failure", |a| {
        a.syn_sent = 0;
        a.error = errno(E::EHOSTUNREACH);
        a.rto_count = 3;
    }, "none null null null"),
];

#[test]
fn replies() {
    let failed: Vec<_> = REPLIES
        .iter()
        .filter_map(|(name, change, expected)| {
            let mut attempt = unanswered();
            change(&mut attempt);
            let got = render(&reply(&attempt));
            (got != *expected).then(|| format!("{name}: {got}, not {expected}"))
        })
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
}
