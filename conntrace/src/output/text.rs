use std::{
    collections::BTreeMap,
    io::{self, Write as _},
};

use jiff::{Timestamp, tz::TimeZone};

use super::Format;
use crate::{
    event::{Details, Endpoint, Event, Line, PortPressure, Subject, Totals},
    message,
    reply::ReplyKind,
    text::visible,
};

/// Aligned text for a person at a terminal.
#[derive(Debug, Default)]
pub struct Text;

impl Format for Text {
    fn render(&mut self, line: &Line, out: &mut Vec<u8>) -> io::Result<()> {
        writeln!(out, "{}", visible(&render(line)))
    }
}

fn render(line: &Line) -> String {
    let time = clock(line.time.0);
    match &line.event {
        Event::Outcome(outcome) => {
            let errno = outcome.errno.as_deref().unwrap_or("-");
            let told = (&outcome.subject, &outcome.details);
            let line = attempt(&time, outcome.label.as_str(), errno, told);
            match &outcome.cause {
                Some(cause) => format!("{line}  {}", cause.why),
                None => line,
            }
        }
        Event::Stall(stall) => attempt(&time, "(stalled)", "-", (&stall.subject, &stall.details)),
        Event::PortPressure(pressure) => port_pressure(&time, pressure),
        Event::Start(start) => {
            let attached = start.hooks.iter().filter(|hook| hook.attached).count();
            format!(
                "{time}  conntrace {} traces kernel {} ({} tier, {attached} of {} hooks)",
                start.version,
                start.kernel,
                start.tier,
                start.hooks.len(),
            )
        }
        Event::Loss(loss) => {
            let counted = |counted: &BTreeMap<&'static str, u64>| {
                counts(counted.iter().map(|(what, count)| (*what, *count)))
            };
            let (lost, undelivered) = (counted(&loss.lost), counted(&loss.undelivered));
            format!("{time}  LOST  {lost}; undelivered {undelivered}")
        }
        Event::Summary(totals) => format!("{time}  {}", summary(totals)),
        Event::Stop(stop) => {
            format!(
                "{time}  stopped ({})  {}",
                stop.reason,
                summary(&stop.totals)
            )
        }
    }
}

fn attempt(
    time: &str,
    label: &str,
    errno: &str,
    (subject, details): (&Subject, &Details),
) -> String {
    let process = &subject.process;
    // Made visible before it is padded, or it would break the columns.
    let who = format!(
        "{}[{}]",
        visible(process.comm.as_deref().unwrap_or("?")),
        process
            .pid
            .map_or_else(|| "?".to_owned(), |pid| pid.to_string()),
    );
    let mut line = format!(
        "{time}  {label:<19}  {errno:<13}  {who:<23}  {:<21} -> {:<21}  {:>10}",
        endpoint(details.local),
        endpoint(subject.remote.endpoint()),
        elapsed(details),
    );
    if let (Some(sent), Some(again)) = (details.syn.sent, details.syn.retransmitted)
        && again > 0
    {
        line.push_str(&format!("  {sent} SYNs"));
    }
    if let Some(answer) = answer(details) {
        line.push_str(&format!("  {answer}"));
    }
    if details.suppressed > 0 {
        line.push_str(&format!("  ({} like it left out)", details.suppressed));
    }
    line
}

/// In the columns of an attempt, which has a process where this has a namespace.
fn port_pressure(time: &str, pressure: &PortPressure) -> String {
    let level = match pressure.level {
        0 => "(ports are back)".to_owned(),
        level => format!("(ports at {level} %)"),
    };
    let mut line = format!(
        "{time}  {level:<19}  {:<13}  {:<23}  {:<21} -> {:<21}  {:>8} %",
        "-",
        format!("netns {}", pressure.netns),
        endpoint(pressure.local),
        endpoint(pressure.remote),
        pressure.percent,
    );
    line.push_str(&format!("  {} ports", pressure.used));
    message::states(&mut line, &pressure.states, pressure.reusable);
    line
}

fn answer(details: &Details) -> Option<String> {
    let reply = &details.reply;
    let who = match reply.kind {
        ReplyKind::None | ReplyKind::SynAck => return None,
        ReplyKind::Rst => return Some("RST".to_owned()),
        ReplyKind::Icmp => "ICMP",
        ReplyKind::Local if reply.icmp_type.is_some() => "own ICMP",
        ReplyKind::Local => details.own_part,
    };
    let mut text = who.to_owned();
    if let (Some(icmp_type), Some(code)) = (reply.icmp_type, reply.icmp_code) {
        text.push_str(&format!(" {icmp_type}/{code}"));
    }
    if let Some(from) = reply.from {
        text.push_str(&format!(" from {from}"));
    }
    Some(text)
}

fn elapsed(details: &Details) -> String {
    let mut text = String::new();
    message::elapsed(&mut text, details);
    text
}

fn endpoint(side: Endpoint) -> String {
    let mut text = String::new();
    message::endpoint(&mut text, side);
    text
}

fn summary(totals: &Totals) -> String {
    let mut text = format!(
        "{} attempts: {}; in flight {}, lost {}",
        totals.attempts,
        counts(
            totals
                .outcomes
                .iter()
                .map(|(label, count)| (label.as_str(), *count))
        ),
        totals.in_flight,
        totals.lost.sum(),
    );
    if totals.suppressed > 0 {
        text.push_str(&format!(", lines left out {}", totals.suppressed));
    }
    text
}

/// `refused 5, timed_out 1`
fn counts<'a>(counts: impl Iterator<Item = (&'a str, u64)>) -> String {
    let counts: Vec<_> = counts
        .map(|(what, count)| format!("{what} {count}"))
        .collect();
    if counts.is_empty() {
        "none".to_owned()
    } else {
        counts.join(", ")
    }
}

/// Time of day in the local zone, milliseconds.
fn clock(time: Timestamp) -> String {
    let local = time.to_zoned(TimeZone::system());
    local.strftime("%H:%M:%S%.3f").to_string()
}
