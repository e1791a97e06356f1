//! From an attempt to its line, in two steps: what equal failures share, and the rest.
//!
//! A line is a function of [`SharedFacts`] and [`OwnNumbers`] only. So lines whose facts are equal
//! differ at most where a number stands, and can be written from one template.

use std::{net::IpAddr, sync::Arc};

use jiff::Timestamp;

use super::{
    COMM_JSON_MAX, Details, Endpoint, Event, Line, Outcome, Owner, Process, RemoteEnd, Stall,
    Subject, Syn, Time,
};
use crate::{
    diagnosis::DiagnosisResult,
    output::message,
    record::{
        Attempt, Caller, Comm, EarlyLimit, Errno, Label, Remote, Reply, ReplyKind, Seen, Verdict,
        early_limit, reply, sanitize,
    },
};

/// Line of an attempt before it is written out.
#[derive(Debug, Clone)]
pub struct AttemptLine {
    /// Facts that the lines of equal failures share.
    pub(crate) facts: SharedFacts,
    /// Numbers of this attempt alone.
    pub(crate) numbers: OwnNumbers,
}

/// Facts that the lines of equal failures share.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct SharedFacts {
    hostname: Arc<str>,
    /// Verdict and cause; `None` for a stall.
    ending: Option<(Verdict, DiagnosisResult)>,
    caller: Option<SharedCaller>,
    owner: Owner,
    remote: Option<Remote>,
    nat: Option<Remote>,
    local_addr: Option<IpAddr>,
    has_local_port: bool,
    netns: u32,
    seen: Seen,
    syn_sent: u32,
    syn_retransmitted: u32,
    reply: Reply,
    own_part: &'static str,
    early_limit: Option<EarlyLimit>,
    heard: bool,
}

/// Facts about a caller that the lines of equal failures share.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct SharedCaller {
    has_tid: bool,
    uid: u32,
    comm: Comm,
    leader_comm: Comm,
}

/// Numbers in the line of one attempt. Where the facts say that one is unknown, it is ignored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OwnNumbers {
    /// Time of the event.
    pub(crate) time: Timestamp,
    /// Time of the call of connect.
    pub(crate) started: Timestamp,
    /// Microseconds between these.
    pub(crate) elapsed_us: u64,
    /// Id of the attempt.
    pub(crate) id: AttemptId,
    /// Process id of the caller.
    pub(crate) pid: u32,
    /// Thread id of the caller.
    pub(crate) tid: u32,
    /// Local port.
    pub(crate) local_port: u16,
    /// Number of similar lines that `--limit` suppressed.
    pub(crate) suppressed: u64,
}

/// Id of an attempt. It is unique, because a thread calls one connect at a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AttemptId {
    /// Time since which it was observed, in nanoseconds of `CLOCK_BOOTTIME`.
    pub(crate) since_ns: u64,
    /// Thread id or CPU number.
    pub(crate) serial: u32,
}

impl AttemptId {
    /// Appends the id as it stands in a line, `{since_ns:x}-{serial:x}`. Formatting would dominate
    /// the cost of a line from a template.
    pub(crate) fn write(self, out: &mut Vec<u8>) {
        let half = |shift: u32| u32::try_from((self.since_ns >> shift) & u64::from(u32::MAX));
        let digits = [32, 0].map(|shift| hexadecimal(half(shift).unwrap_or(0)));
        let serial = hexadecimal(self.serial);
        out.extend_from_slice(without_zeros(
            digits.as_flattened(),
            self.since_ns.leading_zeros(),
        ));
        out.push(b'-');
        out.extend_from_slice(without_zeros(&serial, self.serial.leading_zeros()));
    }
}

/// Returns the eight hexadecimal digits of a number. All are calculated at once, a byte for each.
fn hexadecimal(number: u32) -> [u8; 8] {
    let digits = u64::from(number);
    let digits = (digits | digits << 16) & 0x0000_ffff_0000_ffff;
    let digits = (digits | digits << 8) & 0x00ff_00ff_00ff_00ff;
    let digits = (digits | digits << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    // 1 in the bytes of digits from 10 on.
    let letters = ((digits + 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
    let after_nine = u64::from(b'a' - b'0' - 10);
    (digits + 0x3030_3030_3030_3030 + letters * after_nine).to_be_bytes()
}

/// Returns hexadecimal digits without leading zeros, but at least one. The number has this many
/// leading zero bits.
fn without_zeros(digits: &[u8], zero_bits: u32) -> &[u8] {
    let zeros = usize::try_from(zero_bits / 4).unwrap_or(0);
    let zeros = zeros.min(digits.len().saturating_sub(1));
    digits.get(zeros..).unwrap_or_default()
}

/// Builds the outcome line of an attempt that began and ended at these times.
#[must_use]
pub fn outcome(
    attempt: &Attempt,
    verdict: &Verdict,
    times: (Timestamp, Timestamp),
    owner: Owner,
    diagnosed: DiagnosisResult,
    hostname: &Arc<str>,
) -> AttemptLine {
    let ending = Some((*verdict, diagnosed));
    attempt_line(attempt, ending, times, owner, hostname)
}

/// Builds the stall line of an attempt that began and stalled at these times.
#[must_use]
pub fn stall(
    attempt: &Attempt,
    times: (Timestamp, Timestamp),
    owner: Owner,
    hostname: &Arc<str>,
) -> AttemptLine {
    attempt_line(attempt, None, times, owner, hostname)
}

fn attempt_line(
    attempt: &Attempt,
    ending: Option<(Verdict, DiagnosisResult)>,
    (started, time): (Timestamp, Timestamp),
    owner: Owner,
    hostname: &Arc<str>,
) -> AttemptLine {
    let caller = attempt.caller.as_ref();
    let reply = reply(attempt);
    let label = ending.as_ref().map(|(verdict, _)| verdict.label);
    let tracked = ending.as_ref().and_then(|(_, found)| found.translated_to);
    AttemptLine {
        facts: SharedFacts {
            hostname: Arc::clone(hostname),
            own_part: own_part(attempt, label, &reply),
            early_limit: early_limit(attempt),
            ending,
            caller: caller.map(SharedCaller::of),
            owner,
            remote: attempt.remote,
            nat: attempt.translated_to().or(tracked),
            local_addr: attempt.local_addr,
            has_local_port: attempt.local_port.is_some(),
            netns: attempt.netns,
            seen: attempt.seen,
            syn_sent: attempt.syn_sent,
            syn_retransmitted: attempt.syn_retransmitted,
            reply,
            heard: attempt.heard,
        },
        numbers: OwnNumbers {
            time,
            started,
            elapsed_us: attempt.at_ns.saturating_sub(attempt.since_ns) / 1000,
            id: AttemptId {
                since_ns: attempt.since_ns,
                serial: attempt.serial,
            },
            pid: caller.map_or(0, |caller| caller.pid),
            tid: caller.and_then(|caller| caller.tid).unwrap_or(0),
            local_port: attempt.local_port.unwrap_or(0),
            suppressed: 0,
        },
    }
}

impl SharedCaller {
    fn of(caller: &Caller) -> Self {
        Self {
            has_tid: caller.tid.is_some(),
            uid: caller.uid,
            comm: caller.comm,
            leader_comm: caller.leader_comm,
        }
    }
}

/// Returns the words for a reply of kind `local`. This host answered refused and unreachable
/// attempts. For others it dropped packets, or only recorded an error of its own (`sk_err_soft`).
fn own_part(attempt: &Attempt, label: Option<Label>, reply: &Reply) -> &'static str {
    let answered = matches!(label, Some(Label::Refused | Label::Unreachable));
    match reply.kind {
        ReplyKind::Local if reply.icmp_type.is_some() || answered => "this host itself",
        ReplyKind::Local if attempt.drops.is_some() => "dropped here",
        ReplyKind::Local => "an error of this host's own",
        ReplyKind::None | ReplyKind::SynAck | ReplyKind::Rst | ReplyKind::Icmp => "",
    }
}

impl AttemptLine {
    /// Returns the line.
    #[must_use]
    pub fn line(&self) -> Line {
        self.facts.line(&self.numbers)
    }

    /// Returns the process id of the caller.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.facts.caller.as_ref().map(|_| self.numbers.pid)
    }
}

impl SharedFacts {
    /// Returns the line of an attempt with these facts and numbers.
    pub(crate) fn line(&self, numbers: &OwnNumbers) -> Line {
        let mut subject = self.subject(numbers);
        let details = self.details(numbers);
        let event = match &self.ending {
            None => {
                subject.message = message::stall(&subject, &details, self.heard);
                Event::Stall(Box::new(Stall { subject, details }))
            }
            Some((verdict, diagnosed)) => {
                let cause = &diagnosed.cause;
                let why = cause.as_ref().map(|cause| cause.why.as_str());
                subject.message = message::outcome(&subject, &details, self.heard, verdict, why);
                Event::Outcome(Box::new(Outcome {
                    label: verdict.label,
                    errno: verdict.errno.map(Errno::name),
                    subject,
                    cause: cause.clone(),
                    undiagnosed: diagnosed.undiagnosed,
                    details,
                }))
            }
        };
        Line::new(event, numbers.time, &self.hostname)
    }

    /// Builds the subject without its message.
    fn subject(&self, numbers: &OwnNumbers) -> Subject {
        Subject {
            message: String::new(),
            process: self.process(numbers),
            container: self.owner.container.clone(),
            remote: RemoteEnd {
                addr: self.remote.map(|remote| remote.addr),
                port: self.remote.map(|remote| remote.port),
                nat: self.nat.map(|nat| Endpoint {
                    addr: Some(nat.addr),
                    port: Some(nat.port),
                }),
                ..RemoteEnd::default()
            },
        }
    }

    fn process(&self, numbers: &OwnNumbers) -> Process {
        let caller = self.caller.as_ref();
        let name = |comm: &Comm| sanitize::bounded(comm.as_bytes(), COMM_JSON_MAX);
        let has_tid = caller.is_some_and(|caller| caller.has_tid);
        Process {
            pid: caller.map(|_| numbers.pid),
            tid: has_tid.then_some(numbers.tid),
            comm: caller.map(|caller| name(&caller.comm)),
            leader_comm: caller.map(|caller| name(&caller.leader_comm)),
            exe: self.owner.exe.clone(),
            uid: caller.map(|caller| caller.uid),
            cgroup: self.owner.cgroup.clone(),
        }
    }

    fn details(&self, numbers: &OwnNumbers) -> Details {
        // Facts about the beginning are unknown if only a part of the attempt was seen.
        let whole = self.seen.from_beginning();
        // A recovered ending was found some time after it.
        let is_timely = self.seen == Seen::Whole;
        let verdict = self.ending.as_ref().map(|(verdict, _)| verdict);
        let mut attempt_id = Vec::new();
        numbers.id.write(&mut attempt_id);
        Details {
            local: Endpoint {
                addr: self.local_addr,
                port: self.has_local_port.then_some(numbers.local_port),
            },
            netns: Some(self.netns),
            started: whole.then_some(Time(numbers.started)),
            elapsed_us: is_timely.then_some(numbers.elapsed_us),
            syn: Syn {
                sent: whole.then_some(self.syn_sent),
                retransmitted: whole.then_some(self.syn_retransmitted),
            },
            own_part: self.own_part,
            early_limit: self.early_limit,
            reply: self.reply,
            timeout_by: verdict.and_then(|verdict| verdict.timeout_by),
            suppressed: numbers.suppressed,
            seen: self.seen,
            // Digits are UTF-8.
            attempt_id: String::from_utf8(attempt_id).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_id_is_hexadecimal(since_ns: u64, zeros in 0u32..64, serial: u32) {
            for since_ns in [since_ns, since_ns >> zeros, 0] {
                let serial = serial >> (zeros / 2);
                let mut text = Vec::new();
                AttemptId { since_ns, serial }.write(&mut text);
                prop_assert_eq!(text, format!("{since_ns:x}-{serial:x}").into_bytes());
            }
        }
    }
}
