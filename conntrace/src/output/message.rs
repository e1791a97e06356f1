//! Messages: the sentence for a person in a line.

use std::{fmt::Write as _, net::IpAddr};

use itoa::Integer;

use super::event::{Details, Endpoint, PortUse, States, Subject, TableLoss, TopHolder};
use crate::record::{Label, Reply, ReplyKind, TimeoutBy, Verdict};

/// Formats `curl[4242] 10.0.0.2:43210 -> 10.0.0.5:5432 refused after 0.31 ms: ` and the cause, or,
/// if that is unknown, the reply.
pub(crate) fn outcome(
    subject: &Subject,
    details: &Details,
    heard: bool,
    verdict: &Verdict,
    why: Option<&str>,
) -> String {
    let mut text = who_and_where(subject, details.local, why.map_or(0, str::len));
    let what = match verdict.label {
        Label::Established => "established",
        Label::PortExhausted => "failed, no local port was left,",
        Label::AddressUnavailable => "failed, the local address or port could not be had,",
        Label::Refused => "refused",
        Label::TimedOut => match verdict.timeout_by {
            Some(TimeoutBy::Application) => "given up by the application",
            Some(TimeoutBy::Kernel) | None => "timed out",
        },
        Label::Unreachable => "unreachable",
        Label::Denied => "denied",
        Label::Aborted => "aborted by someone else",
        Label::Cancelled => "cancelled",
        Label::Failed => "failed",
    };
    text.push(' ');
    text.push_str(what);
    if details.syn.sent == Some(0)
        && let Label::Failed | Label::Unreachable | Label::Denied = verdict.label
        && let Some(errno) = verdict.errno
    {
        // Without a SYN there is no reply: the errno is the only fact.
        push(&mut text, format_args!(" with {errno}"));
    }
    text.push_str(" after ");
    elapsed(&mut text, details.elapsed_us);
    if let (Some(TimeoutBy::Kernel), Some(limit)) = (verdict.timeout_by, details.early_limit) {
        push(&mut text, format_args!(", early because {limit}"));
    }
    if let Some(why) = why {
        text.push_str(": ");
        text.push_str(why);
        return text;
    }
    answer(&mut text, &details.reply, details.own_part);
    if verdict.label == Label::TimedOut {
        let syns = syns(details);
        if heard {
            push(&mut text, format_args!(": {HEARD} to {syns}"));
        } else {
            push(&mut text, format_args!(": {syns} unanswered"));
        }
    }
    text
}

/// Message for an attempt that received challenge ACKs, or answers to another SYN.
const HEARD: &str = "segments came, but no acceptable SYN-ACK";

/// Formats `curl[4242] 10.0.0.2:43210 -> 10.0.0.5:5432 no answer after 1.02 s: SYN sent again`.
pub(crate) fn stall(subject: &Subject, details: &Details, heard: bool) -> String {
    let mut text = who_and_where(subject, details.local, 0);
    text.push_str(if heard {
        " not accepted after "
    } else {
        " no answer after "
    });
    elapsed(&mut text, details.elapsed_us);
    if heard {
        push(&mut text, format_args!(": {HEARD}; SYN sent again"));
    } else {
        text.push_str(": SYN sent again");
    }
    text
}

/// Formats `10.0.0.2 -> 10.0.0.5:5432 uses 14200 of 28232 local ports (50 %): 14200 TIME_WAIT`.
pub(crate) fn port_pressure(level: u8, found: &PortUse) -> String {
    let mut text = String::with_capacity(128);
    let verb = if level == 0 { "is back at" } else { "uses" };
    push(
        &mut text,
        format_args!(
            "{} -> {} {verb} {} of {} local ports ({} %)",
            found.local,
            found.remote,
            found.used,
            found.available(),
            found.percent(),
        ),
    );
    states(&mut text, &found.states, found.reusable);
    text
}

/// Appends `: 14200 TIME_WAIT, 20 ESTABLISHED; 90 of these can be reused`.
pub(crate) fn states(text: &mut String, states: &States, reusable: u32) {
    for (index, (state, count)) in states.present().enumerate() {
        let before = if index == 0 { ": " } else { ", " };
        push(text, format_args!("{before}{count} {state}"));
    }
    if reusable > 0 {
        push(text, format_args!("; {reusable} of these can be reused"));
    }
}

/// Formats `1200 attempts found no place in conntrace's table: 40000 of the 49152 in it are of uid 65534,
/// 19000 of them of fill[4242]`.
pub(crate) fn no_place(table: &TableLoss) -> String {
    let mut text = String::with_capacity(128);
    let plural = if table.not_admitted == 1 { "" } else { "s" };
    push(
        &mut text,
        format_args!(
            "{} attempt{plural} found no place in conntrace's table",
            table.not_admitted
        ),
    );
    let Some(top) = &table.top else {
        return text;
    };
    let TopHolder {
        uid,
        pid,
        comm,
        cgroup,
        attempts,
        of_process,
    } = top;
    push(
        &mut text,
        format_args!(": {attempts} of the {} in it are of uid {uid}", table.held),
    );
    // Only root is counted by cgroup.
    if let (0, Some(cgroup)) = (uid, cgroup) {
        push(&mut text, format_args!(" in {cgroup}"));
    }
    push(
        &mut text,
        format_args!(", {of_process} of them of {comm}[{pid}]"),
    );
    text
}

/// Formats caller and addresses, with capacity for `more` bytes to follow.
fn who_and_where(subject: &Subject, local: Endpoint, more: usize) -> String {
    let mut text = String::with_capacity(128 + more);
    let Subject {
        process, remote, ..
    } = subject;
    let comm = process.comm.as_deref().unwrap_or("?");
    text.push_str(comm);
    if let Some(pid) = process.pid {
        text.push('[');
        number(&mut text, pid);
        text.push(']');
    }
    text.push(' ');
    endpoint(&mut text, local);
    text.push_str(" -> ");
    match &remote.name {
        Some(name) => {
            push(&mut text, format_args!("{name} ("));
            endpoint(&mut text, remote.endpoint());
            text.push(')');
        }
        None => endpoint(&mut text, remote.endpoint()),
    }
    text
}

/// Appends `addr:port`: IPv6 in brackets, unknown parts as `*`.
pub(crate) fn endpoint(text: &mut String, endpoint: Endpoint) {
    match endpoint.addr {
        Some(IpAddr::V6(addr)) => push(text, format_args!("[{addr}]")),
        Some(IpAddr::V4(addr)) => {
            let [first, rest @ ..] = addr.octets();
            number(text, first);
            for octet in rest {
                text.push('.');
                number(text, octet);
            }
        }
        None => text.push('*'),
    }
    match endpoint.port {
        Some(port) => {
            text.push(':');
            number(text, port);
        }
        None => text.push_str(":*"),
    }
}

/// Appends a duration in microseconds as `0.31 ms` or `131.05 s`.
pub(crate) fn elapsed(text: &mut String, elapsed_us: Option<u64>) {
    let Some(us) = elapsed_us else {
        text.push_str("an unknown time");
        return;
    };
    let (of_unit, unit) = match us {
        0..1_000_000 => (1000, " ms"),
        _ => (1_000_000, " s"),
    };
    let hundredths = us % of_unit / (of_unit / 100);
    number(text, us / of_unit);
    text.push_str(if hundredths < 10 { ".0" } else { "." });
    number(text, hundredths);
    text.push_str(unit);
}

fn answer(text: &mut String, reply: &Reply, own_part: &str) {
    match reply.kind {
        ReplyKind::None | ReplyKind::SynAck => return,
        ReplyKind::Rst => text.push_str(": RST"),
        ReplyKind::Icmp => text.push_str(": ICMP"),
        ReplyKind::Local => push(text, format_args!(": {own_part}")),
    }
    if let (Some(icmp_type), Some(code)) = (reply.icmp_type, reply.icmp_code) {
        if reply.kind == ReplyKind::Local {
            text.push_str(", ICMP");
        }
        push(text, format_args!(" type {icmp_type} code {code}"));
    }
    if let Some(from) = reply.from {
        push(text, format_args!(" from {from}"));
    }
}

fn syns(details: &Details) -> String {
    match details.syn.sent {
        Some(1) => "1 SYN".to_owned(),
        Some(sent) => format!("{sent} SYNs"),
        None => "SYN".to_owned(),
    }
}

/// Appends a number without [`push`], whose formatting would dominate a message's cost.
fn number(text: &mut String, number: impl Integer) {
    text.push_str(itoa::Buffer::new().format(number));
}

/// Appends formatted text: writing to a `String` cannot fail.
fn push(text: &mut String, args: std::fmt::Arguments<'_>) {
    let _ = text.write_fmt(args);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn icmp_is_named_where_it_came() {
        let reply = |kind, icmp: Option<(u8, u8)>| Reply {
            kind,
            icmp_type: icmp.map(|(icmp_type, _)| icmp_type),
            icmp_code: icmp.map(|(_, code)| code),
            from: icmp.map(|_| [10, 0, 0, 2].into()),
        };
        for (reply, expected) in [
            (reply(ReplyKind::None, None), ""),
            (reply(ReplyKind::Rst, None), ": RST"),
            (reply(ReplyKind::Icmp, None), ": ICMP"),
            (
                reply(ReplyKind::Icmp, Some((3, 1))),
                ": ICMP type 3 code 1 from 10.0.0.2",
            ),
            // For a failed neighbour, or a RST from a rule of this host.
            (reply(ReplyKind::Local, None), ": this host itself"),
            (
                reply(ReplyKind::Local, Some((3, 3))),
                ": this host itself, ICMP type 3 code 3 from 10.0.0.2",
            ),
        ] {
            let mut text = String::new();
            answer(&mut text, &reply, "this host itself");
            assert_eq!(text, expected);
        }
    }
}
