use std::net::SocketAddr;

use super::proxy_in_path;
use crate::{
    diagnosis::{
        Case, Cause, CauseInfo, Certainty, Code, Evidence, Facts, Finding, question::FullQueue,
        step, translation::destination, way_drop, words,
    },
    record::{Label, ReplyKind},
};

/// The server does not accept fast enough. Its listener is on this machine, its accept queue is full,
/// and it has dropped SYNs. The kernel gives no drop reason for that.
///
/// Wrong when the queue had room at the time of the attempt, and the SYN was lost in another way that
/// this machine does not report.
pub(crate) const CAUSE: CauseInfo = CauseInfo {
    code: Code::AcceptQueueFull,
    labels: &[Label::TimedOut],
    is: "The accept queue of the server on this machine is full.",
    means: "the server does not accept connections fast enough",
    recognised: &[
        "Certain: the way leads to a listener on this machine (in the process's network namespace or another one, also by a translation), more connections wait in its accept queue than its backlog allows, and it has dropped some itself (`ss -ltnm`: d).",
        "Likely: the same, and other sockets listen on the port (SO_REUSEPORT), or a rule may lead the SYN elsewhere.",
    ],
    reasons: &[
        "The server hangs, or all of its threads are busy.",
        "Its backlog is small, and connections come in bursts.",
        "net.core.somaxconn of its namespace limits the backlog that it asks for.",
        "The process was stopped, or inherited the listener and never accepts.",
    ],
    steps: &[
        step(
            "ss -ltnmp 'sport = :PORT'",
            "on the server: Recv-Q above Send-Q, and the drops of the listener (d)",
        ),
        step(
            "nstat -az TcpExtListenOverflows TcpExtListenDrops",
            "on the server: both rise while a queue is full",
        ),
        step(
            "sysctl net.core.somaxconn",
            "on the server: the most that a backlog can be. A listener takes a new value when it calls listen again",
        ),
    ],
    look,
    proofs: &[
        (
            Certainty::Certain,
            "the accept queue of the only listener at the end of the way, and the drops that it counts",
        ),
        (
            Certainty::Likely,
            "the same of one of several listeners on the port, or where rules may lead the SYN elsewhere",
        ),
    ],
};

fn look(case: &Case, evidence: &mut dyn Evidence) -> Finding {
    let silent = case.label == Label::TimedOut && case.reply == ReplyKind::None;
    if !silent || case.drops.is_some() || case.own_failure.is_some() {
        return Ok(None);
    }
    if !case.is_free_of_drops()? {
        return Ok(None);
    }
    let Some((netns, at)) = destination(case, evidence)? else {
        return Ok(None);
    };
    let Some(FullQueue {
        listener,
        waiting,
        backlog,
        drops,
        has_others,
    }) = evidence.full_queue(netns, at.addr, at.port)?
    else {
        return Ok(None);
    };
    let is_translated = case.remote.is_some_and(|asked| asked != at);
    // A connection that is led elsewhere may have lost its entry of connection tracking.
    let rewriting = proxy_in_path::rewriting(case, Some(netns), evidence)?;
    if !is_translated && rewriting.is_sure() {
        return Ok(None);
    }
    let is_led_here = is_translated || rewriting.is_ruled_out;
    let certainty = if is_led_here && !has_others {
        Certainty::Certain
    } else {
        Certainty::Likely
    };
    let translation = case.remote.filter(|from| *from != at);
    let translation = translation.map_or_else(String::new, |from| words::translation(from, at));
    let server = words::process(listener.process.as_ref());
    let own = SocketAddr::new(listener.addr, listener.port);
    let place = way_drop::place(case, netns);
    let show = format!("ss -ltnmp 'sport = :{}'", at.port);
    let show = words::command_in(netns, &show, evidence);
    let limit = words::command_in(netns, "sysctl net.core.somaxconn", evidence);
    Ok(Some(Cause::new(
        Code::AcceptQueueFull,
        certainty,
        &format!(
            "{translation}{server} listens on {own} in {place} and does not accept fast enough: {} \
             wait in its accept queue, whose backlog is {}, and it has dropped {} since it began to listen",
            words::count(waiting),
            words::count(backlog),
            words::count(drops),
        ),
        &format!(
            "let {server} accept faster, or raise the backlog that it passes to listen, up to {limit}; \
             {show} shows Recv-Q above Send-Q while the queue is full"
        ),
        Facts::new()
            .with("netns", netns)
            .with("listener", &listener)
            .with("waiting", waiting)
            .with("backlog", backlog)
            .with("listener_drops", drops)
            .with("other_listeners", has_others),
    )))
}
